// What an op is to TensorRT: its fields, its arguments with their shapes, and the libdibr calls behind it. An op is one
// constant of type OpDefinition; everything TensorRT asks of a plugin follows from it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "dibr/dibr.h"

namespace dibr::tensorrt {

// A constant array, seen without its length in the type.
template <class T>
class View {
 public:
  constexpr View() = default;
  template <size_t count>
  constexpr View(const T (&items)[count]) : data_(items), size_(count) {}
  View(const std::vector<T>& items) : data_(items.data()), size_(items.size()) {}

  constexpr int size() const { return static_cast<int>(size_); }
  constexpr const T& operator[](size_t index) const { return data_[index]; }
  constexpr const T* begin() const { return data_; }
  constexpr const T* end() const { return data_ + size_; }

 private:
  const T* data_ = nullptr;
  size_t size_ = 0;
};

// Sizes that the arguments of an op share, named as in its documentation. The last are those of what Render
// interpolates: uvs, and attributes 0 to 2.
enum Size { A, B, C, D, F, H, Ht, V, W, Wt, At, Vt, A0, V0, D0, A1, V1, D1, A2, V2, D2, kSizes };
inline constexpr const char* kSizeNames[kSizes] = {"A",  "B",  "C",  "D",  "F",  "H",  "Ht", "V",  "W",  "Wt", "At",
                                                   "Vt", "A0", "V0", "D0", "A1", "V1", "D1", "A2", "V2", "D2"};

inline constexpr int64_t kUnknown = -1;

// The value of each size in one use of an op; kUnknown where no argument has told it.
class Sizes {
 public:
  Sizes() { values_.fill(kUnknown); }
  int64_t& operator[](Size size) { return values_[size]; }
  int64_t operator[](Size size) const { return values_[size]; }

 private:
  std::array<int64_t, kSizes> values_;
};

// One dimension: a size, or a number.
struct Extent {
  constexpr Extent() = default;
  constexpr Extent(Size size) : size(size) {}
  constexpr Extent(int number) : number(number) {}
  constexpr bool is_number() const { return size == kSizes; }

  Size size = kSizes;
  int number = 0;
};

struct Shape {
  static constexpr int kMaxRank = 4;
  constexpr Shape(std::initializer_list<Extent> dims) : rank(static_cast<int>(dims.size())) {
    int axis = 0;
    for (const Extent& extent : dims) extents[axis++] = extent;
  }
  constexpr const Extent& operator[](int axis) const { return extents[axis]; }

  int rank;
  Extent extents[kMaxRank];
};

// kReal: float32, float16 or bfloat16, the same for the whole plugin. kTexel: as kReal, where texture and attributes of
// one plugin may differ.
enum class Type { kFloat32, kInt32, kReal, kTexel };

inline constexpr bool kOptional = true;

struct Argument {
  const char* name;
  Type type;
  Shape shape;
  bool optional = false;  // may be left out, together with all after it
};

// A plugin's attribute. Its range is what libdibr accepts for it.
struct Field {
  enum class Kind { kInteger, kBoolean, kReal, kChoice, kSet };

  const char* name;
  Kind kind;
  double fallback;            // of a choice: its index; of a set: a bit for each choice
  View<const char*> choices;  // in the order of dibr.h's enumeration; a set is written with commas
};

constexpr Field integer(const char* name, int fallback) { return {name, Field::Kind::kInteger, double(fallback), {}}; }
constexpr Field boolean(const char* name, bool fallback) { return {name, Field::Kind::kBoolean, double(fallback), {}}; }
constexpr Field real(const char* name, float fallback) { return {name, Field::Kind::kReal, fallback, {}}; }
template <size_t count>
constexpr Field choice(const char* name, const char* const (&choices)[count], int fallback) {
  return {name, Field::Kind::kChoice, double(fallback), choices};
}
template <size_t count>
constexpr Field set_of(const char* name, const char* const (&choices)[count], int fallback) {
  return {name, Field::Kind::kSet, double(fallback), choices};
}

// The value of each field: integers have 32 bits, so that a double holds any of them.
inline constexpr int kMaxFields = 11;
using Values = std::array<double, kMaxFields>;

// A size that no input has: it comes from the shape input, or else from a field.
struct FieldSize {
  Size size;
  int field;
};

// A host tensor of int64 that gives sizes in this order.
struct ShapeInput {
  const char* name;
  View<FieldSize> sizes;
};

// One use of an op. Where only its sizes matter, it has no memory.
struct Problem {
  const Values& fields;
  const Sizes& sizes;
  dibr_dtype dtype;  // of the arguments of type kReal
  const void* const* inputs = nullptr;
  int input_count = 0;
  void* const* outputs = nullptr;
  dibr_dtype texel_dtype = DIBR_FLOAT32;  // of those of type kTexel

  template <class T = void>
  const T* input(int index) const {
    return inputs == nullptr || index >= input_count ? nullptr : static_cast<const T*>(inputs[index]);
  }
  template <class T = void>
  T* output(int index) const {
    return outputs == nullptr ? nullptr : static_cast<T*>(outputs[index]);
  }
};

// The two functions of a libdibr op.
struct Calls {
  dibr_status (*workspace_size)(const Problem& problem, dibr_device device, uint64_t* bytes);
  dibr_status (*launch)(const Problem& problem, const dibr_launch& launch);
};

template <auto make_params, auto workspace_size_of, auto op>
inline constexpr Calls kCalls = {[](const Problem& problem, dibr_device device, uint64_t* bytes) {
                                   const auto params = make_params(problem);
                                   return workspace_size_of(&params, device, bytes);
                                 },
                                 [](const Problem& problem, const dibr_launch& launch) {
                                   const auto params = make_params(problem);
                                   return op(&params, &launch);
                                 }};

struct OpDefinition {
  const char* name;
  View<Field> fields;
  View<Argument> inputs;
  ShapeInput shape_input;
  View<Argument> outputs;
  Calls calls;
  // Where the fields decide which arguments there are: cuts both down to them. Inputs up to the last that is needed are
  // no longer optional.
  void (*choose_arguments)(const Values& fields, std::vector<Argument>* inputs,
                           std::vector<Argument>* outputs) = nullptr;
};

extern const OpDefinition kRasterize;
extern const OpDefinition kInterpolate;
extern const OpDefinition kSoftMask;
extern const OpDefinition kTexture;
extern const OpDefinition kAntialias;
extern const OpDefinition kRender;

inline constexpr const OpDefinition* kOps[] = {&kRasterize, &kInterpolate, &kSoftMask,
                                               &kTexture,   &kAntialias,   &kRender};

// What a node selects a plugin by, besides the op's name: its attributes plugin_namespace and plugin_version.
inline constexpr const char* kNamespace = "ai.dibr";
#define DIBR_TEXT_OF(value) #value
#define DIBR_TEXT(value) DIBR_TEXT_OF(value)
inline constexpr const char* kVersion = DIBR_TEXT(DIBR_SCHEMA_VERSION);
#undef DIBR_TEXT
#undef DIBR_TEXT_OF

}  // namespace dibr::tensorrt
