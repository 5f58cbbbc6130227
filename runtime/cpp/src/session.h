// What a dibr_session is.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"

struct dibr_session {
  dibr_session(const std::string& path, const dibr::runtime::Options& options);

  std::string provider, notes;
  std::unique_ptr<dibr::runtime::Backend> backend;
  // Pointers into backend->inputs and outputs, for dibr_tensor_info.
  std::vector<std::vector<const char*>> input_axes, output_axes;
};
