// What a dibr_session is.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "bundle.h"

struct dibr_session {
  dibr_session(const std::string& path, const dibr::runtime::Options& options);
  // Of a model that is a part of something else.
  dibr_session(const dibr::runtime::OnnxModel& model, const dibr::runtime::Options& options);

  std::string provider, notes;
  std::unique_ptr<dibr::runtime::Backend> backend;
  bool can_preprocess() const { return preprocess_model_.has_value(); }
  // The bundle's graph from pixels to an input, opened at the first call. Fails with ABSENT where it has none.
  dibr::runtime::Backend& preprocessor() const;

  bool has_renderer() const { return with_renderer_ != nullptr; }
  // Fails with ABSENT where the bundle has none.
  std::unique_ptr<dibr_session> open_renderer() const;

  // Pointers into backend->inputs and outputs, for dibr_tensor_info.
  std::vector<std::vector<const char*>> input_axes, output_axes;

 private:
  std::string path_;
  dibr::runtime::Options options_;
  std::optional<dibr::runtime::OnnxModel> preprocess_model_;
  std::shared_ptr<const dibr::runtime::Bundle> with_renderer_;  // the bundle, where it has one
  mutable std::mutex mutex_;
  mutable std::unique_ptr<dibr::runtime::Backend> preprocessor_;
};
