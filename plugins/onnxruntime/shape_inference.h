// Shapes of a node's outputs from those of its inputs, as far as a graph tells them before it runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "onnxruntime/api.h"

namespace dibr::onnxruntime {

// A dimension in a graph: a number, or a name that stands for one number wherever it occurs.
struct Dim {
  Dim(int64_t number) : number(number) {}
  Dim(std::string symbol) : symbol(std::move(symbol)) {}

  // A dimension about which nothing is known.
  static Dim unknown();

  int64_t number = -1;
  std::string symbol;
};

class ShapeInference {
 public:
  explicit ShapeInference(OrtShapeInferContext* context) : context_(context) {}

  bool has_input(size_t index) const;
  // One dimension of an input of the given rank; unknown where the graph does not tell.
  Dim input(size_t index, size_t rank, size_t axis) const;
  ONNXTensorElementDataType input_type(size_t index) const;
  int64_t integer(const char* attribute, int64_t fallback) const;
  std::string text(const char* attribute) const;  // empty where it is absent

  void set_output(size_t index, const std::vector<Dim>& shape, ONNXTensorElementDataType type) const;

 private:
  const OrtTensorTypeAndShapeInfo* info(size_t index) const;

  OrtShapeInferContext* context_;
};

}  // namespace dibr::onnxruntime
