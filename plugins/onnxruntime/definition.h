// What an op is to ONNX Runtime: its name, arguments, kernel and shape inference.
#pragma once

#include <cstddef>
#include <memory>

#include "onnxruntime/call.h"
#include "onnxruntime/node.h"
#include "onnxruntime/shape_inference.h"

namespace dibr::onnxruntime {

// kReal: float32 or float64, the same for the whole node. kStored: the same, or a 16-bit float beside float32. kTexel:
// as kStored, where texture and attributes of one node may differ.
enum class Type { kReal, kStored, kTexel, kInt32, kInt64 };

// What kStored and kTexel stand for in one registration of an op; kReal is float64 where they are, else float32.
struct Dtypes {
  dibr_dtype stored, texel;
};

inline constexpr bool kOptional = true;
inline constexpr bool kOnHost = true;  // stays in host memory on every execution provider

struct Argument {
  const char* name;
  Type type;
  bool optional = false;
  bool on_host = false;
};

// A view of a constant array of arguments, so that definitions have no destructor: sessions may outlive static objects.
class Arguments {
 public:
  template <size_t count>
  constexpr Arguments(const Argument (&arguments)[count]) : data_(arguments), size_(count) {}

  size_t size() const { return size_; }
  const Argument& operator[](size_t index) const { return data_[index]; }

 private:
  const Argument* data_;
  size_t size_;
};

// A node's attributes, read once, and what it computes.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(const Call& call) const = 0;
};

struct OpDefinition {
  const char* name;
  Arguments inputs;
  Arguments outputs;
  std::unique_ptr<Kernel> (*create)(const Node& node);
  void (*infer_shapes)(const ShapeInference& shapes);
};

extern const OpDefinition kRasterize;
extern const OpDefinition kInterpolate;
extern const OpDefinition kSoftMask;
extern const OpDefinition kTexture;
extern const OpDefinition kAntialias;
extern const OpDefinition kRender;

}  // namespace dibr::onnxruntime
