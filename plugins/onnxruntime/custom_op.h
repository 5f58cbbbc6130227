// An OpDefinition for one dtype on one device, in the form that ONNX Runtime calls.
#pragma once

#include "dibr/dibr.h"
#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {

class CustomOp : public OrtCustomOp {
 public:
  CustomOp(const OpDefinition& definition, dibr_dtype dtype, dibr_device device, bool infer_shapes);

 private:
  const OpDefinition& definition_;
  dibr_dtype dtype_;
  dibr_device device_;
};

}  // namespace dibr::onnxruntime
