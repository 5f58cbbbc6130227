// What an ONNX file says about itself, read without loading it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "files.h"

namespace dibr::runtime {

constexpr const char* op_domain = "ai.dibr";

struct OnnxHeader {
  std::map<std::string, std::int64_t> opsets;  // by domain
  std::map<std::string, std::string> metadata;

  bool has_our_ops() const { return opsets.count(op_domain) > 0; }
  // Of the ai.dibr ops that the model uses; 0 where it uses none.
  std::int64_t schema_version() const;
};

// what: names the model in errors. Fails with REFUSED where it is cut off or no ONNX model.
OnnxHeader parse_onnx_header(const Bytes& model, const std::string& what);

}  // namespace dibr::runtime
