// One node of a model as its kernel sees it when the session is created.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "onnxruntime/api.h"

namespace dibr::onnxruntime {

// Reads attributes with their defaults; a value of another type or outside its range fails with one sentence.
class Node {
 public:
  Node(const char* op, const OrtKernelInfo* info) : op_(op), info_(info) {}

  const char* op() const { return op_; }
  bool has_input(size_t index) const;

  int64_t integer(const char* name, int64_t fallback, int64_t lowest) const;
  bool boolean(const char* name, bool fallback) const;
  double real(const char* name, double fallback, bool zero_allowed) const;
  std::string text(const char* name, const char* fallback) const;

  // The first choice is the default.
  template <class Enum>
  Enum choice(const char* name, const std::vector<std::pair<const char*, Enum>>& choices) const {
    const std::string value = text(name, choices.front().first);
    std::string names;
    for (const auto& [choice_name, choice_value] : choices) {
      if (value == choice_name) return choice_value;
      names += (names.empty() ? "\"" : ", \"") + std::string(choice_name) + "\"";
    }
    reject(name, "one of " + names, '"' + value + '"');
  }

 private:
  [[noreturn]] void reject(const char* name, const std::string& expected, const std::string& actual) const;
  bool get(const char* name, int64_t& value) const;
  bool get(const char* name, float& value) const;
  bool get(const char* name, std::string& value) const;
  template <class T>
  T read(const char* name, const char* type, T fallback) const;

  const char* op_;
  const OrtKernelInfo* info_;
};

}  // namespace dibr::onnxruntime
