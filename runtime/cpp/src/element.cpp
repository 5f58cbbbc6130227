#include "element.h"

namespace dibr::runtime {
namespace {

constexpr ElementType types[] = {
    {DIBR_ELEMENT_FLOAT16, "float16", 2, 10}, {DIBR_ELEMENT_BFLOAT16, "bfloat16", 2, 16},
    {DIBR_ELEMENT_FLOAT32, "float32", 4, 1},  {DIBR_ELEMENT_FLOAT64, "float64", 8, 11},
    {DIBR_ELEMENT_INT8, "int8", 1, 3},        {DIBR_ELEMENT_UINT8, "uint8", 1, 2},
    {DIBR_ELEMENT_INT16, "int16", 2, 5},      {DIBR_ELEMENT_UINT16, "uint16", 2, 4},
    {DIBR_ELEMENT_INT32, "int32", 4, 6},      {DIBR_ELEMENT_UINT32, "uint32", 4, 12},
    {DIBR_ELEMENT_INT64, "int64", 8, 7},      {DIBR_ELEMENT_UINT64, "uint64", 8, 13},
    {DIBR_ELEMENT_BOOL, "bool", 1, 9},
};

template <class Matches>
const ElementType* find(const Matches& matches) {
  for (const ElementType& type : types) {
    if (matches(type)) return &type;
  }
  return nullptr;
}

}  // namespace

const ElementType* element_type(dibr_element element) {
  return find([&](const ElementType& type) { return static_cast<int>(type.element) == static_cast<int>(element); });
}
const ElementType* element_named(const std::string& name) {
  return find([&](const ElementType& type) { return type.name == name; });
}
const ElementType* element_of_onnx(int onnx) {
  return find([&](const ElementType& type) { return type.onnx == onnx; });
}

}  // namespace dibr::runtime

extern "C" size_t dibr_element_size(dibr_element element) {
  const auto* type = dibr::runtime::element_type(element);
  return type != nullptr ? type->bytes : 0;
}

extern "C" const char* dibr_element_name(dibr_element element) {
  const auto* type = dibr::runtime::element_type(element);
  return type != nullptr ? type->name : "";
}
