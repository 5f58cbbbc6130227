// An OpDefinition for one choice of dtypes on one device, in the form that ONNX Runtime calls.
#pragma once

#include "dibr/dibr.h"
#include "onnxruntime/definition.h"

namespace dibr::onnxruntime {

class CustomOp : public OrtCustomOp {
 public:
  CustomOp(const OpDefinition& definition, Dtypes dtypes, dibr_device device, bool infer_shapes);

 private:
  const OpDefinition& definition_;
  Dtypes dtypes_;
  dibr_device device_;
};

}  // namespace dibr::onnxruntime
