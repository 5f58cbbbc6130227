// What fields the documentation allows, written down apart from the door.
#pragma once

#include "tensorrt_door/plugins.h"

namespace dibr::test {

// Fields of an op that are all there and valid, as an engine holds them; `variant` chooses other values.
FieldValues valid_fields(const std::string& op, uint64_t variant);

bool is_allowed(const std::string& op, const FieldValues& fields, TensorRTPhase phase);

// Whether tensors with these dimensions, inputs before outputs, can be the arguments of one use of an op.
bool shapes_agree(const std::string& op, const std::vector<nvinfer1::Dims>& inputs,
                  const std::vector<nvinfer1::Dims>& outputs);

}  // namespace dibr::test
