#include "tensorrt_door/rules.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

namespace dibr::test {
namespace {

template <class T>
T scalar(const FieldValue& field) {
  T value;
  std::memcpy(&value, field.bytes.data(), sizeof value);
  return value;
}

bool is_scalar(const FieldValue& field) { return field.has_data && field.length == 1; }

bool integer_within(const FieldValue& field, int64_t lowest, int64_t highest) {
  const bool narrow = field.type == PluginFieldType::kINT32;
  if (!is_scalar(field) || !(narrow || field.type == PluginFieldType::kINT64)) return false;
  const int64_t value = narrow ? scalar<int32_t>(field) : scalar<int64_t>(field);
  return value >= lowest && value <= highest;
}

bool real_within(const FieldValue& field, float lowest, bool lowest_allowed) {
  if (!is_scalar(field) || field.type != PluginFieldType::kFLOAT32) return false;
  const float value = scalar<float>(field);
  return value <= 1e30 && (lowest_allowed ? value >= lowest : value > lowest);
}

bool one_of(const FieldValue& field, const std::set<std::string>& choices) {
  if (!field.has_data || field.type != PluginFieldType::kCHAR || field.length < 0 || field.length > 32) return false;
  std::string text = field.bytes.substr(0, size_t(field.length));
  if (!text.empty() && text.back() == '\0') text.pop_back();
  return choices.count(text) > 0;
}

const std::vector<std::string> kRenderOutputs = {
    "color", "mask", "face_index", "depth", "barycentrics", "uv", "interpolated_0", "interpolated_1", "interpolated_2"};

// Names out of kRenderOutputs, each once, with commas.
bool lists_outputs(const FieldValue& field) {
  if (!field.has_data || field.type != PluginFieldType::kCHAR || field.length < 0 || field.length > 256) return false;
  std::string text = field.bytes.substr(0, size_t(field.length));
  if (!text.empty() && text.back() == '\0') text.pop_back();
  std::set<std::string> seen;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string name = text.substr(begin, end - begin);
    if (std::count(kRenderOutputs.begin(), kRenderOutputs.end(), name) == 0 || !seen.insert(name).second) return false;
    begin = end + 1;
  }
  return true;
}

bool is_allowed(const std::string& op, const FieldValue& field) {
  if (op == "Render") {
    if (field.name == "outputs") return lists_outputs(field);
    if (field.name == "filter") return one_of(field, {"nearest", "bilinear"});
    for (const char* part : {"Rasterize", "SoftMask", "Texture"}) {
      if (field.name != "schema_version" && is_allowed(part, field)) return true;
    }
  }
  const std::string key = op + "." + field.name;
  if (field.name == "schema_version") return integer_within(field, 1, 1);
  if (key == "Rasterize.height" || key == "Rasterize.width") return integer_within(field, 0, 32768);
  if (key == "Rasterize.perspective_correct" || key == "Rasterize.depth_clip") return integer_within(field, 0, 1);
  if (key == "Rasterize.cull") return one_of(field, {"none", "back"});
  if (key == "SoftMask.sigmainv") return real_within(field, 0, false);
  if (key == "SoftMask.boxlen") return real_within(field, 0, true);
  if (key == "SoftMask.knum") return integer_within(field, 1, INT32_MAX);
  if (key == "Texture.filter") return one_of(field, {"nearest", "bilinear", "trilinear"});
  if (key == "Texture.wrap") return one_of(field, {"clamp", "repeat", "mirror"});
  return false;
}

struct Signature {
  std::vector<std::string> inputs, outputs;  // a letter or a digit per dimension; h and w are the texture's
};

const Signature& signature(const std::string& op) {
  static const std::map<std::string, Signature> kSignatures = {
      {"Rasterize", {{"BV4", "F3", "B2", "BF"}, {"BHW", "BHW3", "BHW"}}},
      {"Interpolate", {{"AVD", "F3", "BHW", "BHW3"}, {"BHWD"}}},
      {"SoftMask", {{"BV4", "F3", "BHW", "B2"}, {"BHW"}}},
      {"Texture", {{"ACwh", "BHW2", "BHW"}, {"BHWC"}}},
      {"Antialias", {{"BHWC", "BV4", "F3", "BHW", "BHW3", "B2"}, {"BHWC"}}},
      // As created without fields: of its outputs face_index alone.
      {"Render", {{"BV4", "F3", "mn2", "F3", "ACwh", "opq", "F3", "rst", "F3", "xyz", "F3", "B2", "BF"}, {"BHW"}}}};
  return kSignatures.at(op);
}

bool shape_agrees(const std::string& expected, const nvinfer1::Dims& dims, std::map<char, int64_t>* sizes) {
  if (dims.nbDims != int32_t(expected.size())) return false;
  for (size_t axis = 0; axis < expected.size(); ++axis) {
    const char letter = expected[axis];
    const int64_t wanted =
        letter >= '0' && letter <= '9' ? letter - '0' : sizes->emplace(letter, dims.d[axis]).first->second;
    if (dims.d[axis] != wanted || wanted < 0) return false;
  }
  return true;
}

}  // namespace

bool shapes_agree(const std::string& op, const std::vector<nvinfer1::Dims>& inputs,
                  const std::vector<nvinfer1::Dims>& outputs) {
  const Signature& expected = signature(op);
  std::map<char, int64_t> sizes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!shape_agrees(expected.inputs[i], inputs[i], &sizes)) return false;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!shape_agrees(expected.outputs[i], outputs[i], &sizes)) return false;
  }
  return true;
}

FieldValues valid_fields(const std::string& op, uint64_t variant) {
  const auto pick = [&](uint64_t salt, uint64_t count) { return (variant * 2654435761u + salt * 40503u) / 7 % count; };
  FieldValues fields = {int32_field("schema_version", 1)};
  if (op == "Rasterize") {
    fields.push_back(int32_field("height", int32_t(pick(1, 32769))));
    fields.push_back(int32_field("width", int32_t(pick(2, 32769))));
    fields.push_back(int32_field("perspective_correct", int32_t(pick(3, 2))));
    fields.push_back(text_field("cull", pick(4, 2) ? "back" : "none"));
    fields.push_back(int32_field("depth_clip", int32_t(pick(5, 2))));
  } else if (op == "SoftMask") {
    fields.push_back(float_field("sigmainv", 0.5f + float(pick(1, 100000))));
    fields.push_back(float_field("boxlen", float(pick(2, 1000)) / 777));
    fields.push_back(int32_field("knum", 1 + int32_t(pick(3, 100))));
  } else if (op == "Texture") {
    fields.push_back(text_field("filter", std::vector<std::string>{"bilinear", "nearest", "trilinear"}[pick(1, 3)]));
    fields.push_back(text_field("wrap", std::vector<std::string>{"clamp", "repeat", "mirror"}[pick(2, 3)]));
  } else if (op == "Render") {
    std::string outputs;
    const uint64_t bits = variant == 0 ? 511 : 1 + pick(9, 511);
    for (size_t i = 0; i < kRenderOutputs.size(); ++i) {
      if ((bits >> i & 1) != 0) outputs += (outputs.empty() ? "" : ",") + kRenderOutputs[i];
    }
    fields.push_back(text_field("outputs", outputs));
    for (const char* part : {"Rasterize", "SoftMask", "Texture"}) {
      const FieldValues of_part = valid_fields(part, variant);
      fields.insert(fields.end(), of_part.begin() + 1, of_part.end());
    }
    for (FieldValue& field : fields) {
      if (field.name == "filter") field = text_field("filter", pick(10, 2) ? "nearest" : "bilinear");
    }
  }
  return fields;
}

bool is_allowed(const std::string& op, const FieldValues& fields, TensorRTPhase phase) {
  std::set<std::string> names;
  for (const FieldValue& field : fields) {
    if (!names.insert(field.name).second || !is_allowed(op, field)) return false;
  }
  if (phase != TensorRTPhase::kRUNTIME) return true;
  for (const FieldValue& field : valid_fields(op, 0)) {
    if (names.count(field.name) == 0) return false;
  }
  return true;
}

}  // namespace dibr::test
