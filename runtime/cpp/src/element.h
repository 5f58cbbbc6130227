// Types of elements by name and size.
#pragma once

#include <cstddef>
#include <string>

#include "dibr/runtime.h"

namespace dibr::runtime {

struct ElementType {
  dibr_element element;
  const char* name;
  std::size_t bytes;
  int onnx;  // of TensorProto.DataType and of ONNXTensorElementDataType, which agree
};

// nullptr where there is none.
const ElementType* element_type(dibr_element element);
const ElementType* element_named(const std::string& name);
const ElementType* element_of_onnx(int type);

}  // namespace dibr::runtime
