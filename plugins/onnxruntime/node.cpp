#include "onnxruntime/node.h"

#include <charconv>
#include <cmath>

namespace dibr::onnxruntime {
namespace {

bool succeeded(OrtStatus* status) {
  if (status == nullptr) return true;
  Ort::GetApi().ReleaseStatus(status);
  return false;
}

// The float64 whose shortest decimal is that of value. ONNX stores 0.02 as the nearest float32; this gives 0.02 back,
// so that a float64 graph computes with the number its author wrote.
double as_written(float value) {
  char text[64];
  const std::to_chars_result end = std::to_chars(text, text + sizeof(text), value);
  double result = value;
  std::from_chars(text, end.ptr, result);
  return result;
}

std::string shortest(double value) {
  char text[64];
  return std::string(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

}  // namespace

bool Node::has_input(size_t index) const {
  size_t count = 0;
  Ort::ThrowOnError(Ort::GetApi().KernelInfo_GetInputCount(info_, &count));
  if (index >= count) return false;
  size_t name_bytes = 0;
  Ort::ThrowOnError(Ort::GetApi().KernelInfo_GetInputName(info_, index, nullptr, &name_bytes));
  return name_bytes > 1;
}

int64_t Node::integer(const char* name, int64_t fallback, int64_t lowest) const {
  const int64_t value = read<int64_t>(name, "an integer", fallback);
  if (value < lowest) reject(name, "at least " + std::to_string(lowest), std::to_string(value));
  return value;
}

bool Node::boolean(const char* name, bool fallback) const {
  const int64_t value = read<int64_t>(name, "an integer", fallback);
  if (value != 0 && value != 1) reject(name, "0 or 1", std::to_string(value));
  return value != 0;
}

double Node::real(const char* name, double fallback, bool zero_allowed) const {
  const double value = as_written(read<float>(name, "a float", static_cast<float>(fallback)));
  if (!std::isfinite(value) || value < 0 || (value == 0 && !zero_allowed)) {
    reject(name, zero_allowed ? "finite and at least 0" : "finite and greater than 0", shortest(value));
  }
  return value;
}

std::string Node::text(const char* name, const char* fallback) const {
  return read<std::string>(name, "a string", fallback);
}

void Node::reject(const char* name, const std::string& expected, const std::string& actual) const {
  fail(std::string(op_) + ": attribute " + name + " must be " + expected + ", got " + actual);
}

bool Node::get(const char* name, int64_t& value) const {
  return succeeded(Ort::GetApi().KernelInfoGetAttribute_int64(info_, name, &value));
}

bool Node::get(const char* name, float& value) const {
  return succeeded(Ort::GetApi().KernelInfoGetAttribute_float(info_, name, &value));
}

bool Node::get(const char* name, std::string& value) const {
  size_t bytes = 0;
  if (!succeeded(Ort::GetApi().KernelInfoGetAttribute_string(info_, name, nullptr, &bytes))) return false;
  value.resize(bytes);
  Ort::ThrowOnError(Ort::GetApi().KernelInfoGetAttribute_string(info_, name, value.data(), &bytes));
  value.resize(bytes - 1);
  return true;
}

// ONNX Runtime reports an absent attribute and one of another type alike; asking for the other types tells them apart.
template <class T>
T Node::read(const char* name, const char* type, T fallback) const {
  T value{};
  if (get(name, value)) return value;
  int64_t integer = 0;
  float real = 0;
  std::string text;
  if (get(name, integer)) reject(name, type, "the integer " + std::to_string(integer));
  if (get(name, real)) reject(name, type, "the float " + shortest(real));
  if (get(name, text)) reject(name, type, "the string \"" + text + '"');
  return fallback;
}

template int64_t Node::read(const char*, const char*, int64_t) const;
template float Node::read(const char*, const char*, float) const;
template std::string Node::read(const char*, const char*, std::string) const;

}  // namespace dibr::onnxruntime
