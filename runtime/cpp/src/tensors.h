// Inputs and outputs of a model, and what a caller passes for them.
#pragma once

#include <string>
#include <vector>

#include "dibr/runtime.h"
#include "element.h"

namespace dibr::runtime {

// An input or output of a model.
struct TensorSpec {
  std::string name, meaning;
  const ElementType* type = nullptr;
  std::vector<std::int64_t> shape;  // -1 where the size is dynamic
  std::vector<std::string> axes;    // names of dynamic sizes, "" elsewhere

  // Same name, type and sizes; of dynamic ones the same names.
  bool agrees_with(const TensorSpec& other) const {
    return name == other.name && type == other.type && shape == other.shape && axes == other.axes;
  }
};

// For example "[batch, 3, 64, 64]".
std::string described(const TensorSpec& spec);
std::string described(const std::int64_t* shape, std::size_t rank);

// The caller's inputs in the order of specs. Fails with INVALID_ARGUMENT where one is missing, unknown, given twice, or
// of another type, shape or length.
std::vector<dibr_tensor> checked_inputs(const std::vector<TensorSpec>& specs, const dibr_tensor* inputs,
                                        std::size_t count);

// Bytes of a tensor; fails where a size is negative or the product does not fit. what: for the error.
std::size_t tensor_bytes(const std::string& what, const ElementType& type, const std::int64_t* shape, std::size_t rank);

}  // namespace dibr::runtime
