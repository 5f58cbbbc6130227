// Uses of the ops: tensors of given sizes, with the outputs that libdibr's CPU backend gives for them.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

#include "native/harness.h"
#include "tensorrt_door/plugins.h"

namespace dibr::test {

struct Tensor {
  Tensor(std::vector<int64_t> shape, DataType type, unsigned char poison = 0xA5);

  nvinfer1::PluginTensorDesc desc() const;
  int64_t count() const;
  template <class T>
  T* values() {
    return static_cast<T*>(bytes.data());
  }

  std::vector<int64_t> shape;
  DataType type;
  Bytes bytes;
};

struct ImageSizes {
  int64_t batch, vertices, faces, height, width;
  int64_t channels = 3, texture_height = 8, texture_width = 8;
};

// How an op is used: its fields, its type of reals, how many optional inputs it gets, and whether attributes or
// textures are shared by the batch.
struct Usage {
  std::string op;
  FieldValues fields;
  DataType real = DataType::kFLOAT;
  int optional_inputs = 0;
  bool shared = false;
  DataType texel = DataType::kFLOAT;  // of Render's texture
};

struct Use {
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;  // by the CPU backend
};

Use make_use(const Usage& usage, const ImageSizes& sizes, uint64_t seed);

std::vector<nvinfer1::PluginTensorDesc> descs_of(const std::vector<Tensor>& tensors);

}  // namespace dibr::test
