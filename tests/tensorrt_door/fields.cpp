// Fields, one by one: what is taken, what is refused, and what the refusal says.
#include <cmath>

#include "tensorrt_door/plugins.h"
#include "tensorrt_door/rules.h"

namespace dibr::test {
namespace {

struct Refusal {
  std::string op;
  FieldValues fields;
  std::string says;
  TensorRTPhase phase = TensorRTPhase::kBUILD;
};

FieldValue int64_field(const std::string& name, int64_t value) {
  return {name, PluginFieldType::kINT64, 1, std::string(reinterpret_cast<const char*>(&value), sizeof value)};
}

FieldValue with(FieldValue field, int32_t length) {
  field.length = length;
  return field;
}

FieldValue without_data(FieldValue field) {
  field.has_data = false;
  return field;
}

std::vector<Refusal> refusals() {
  constexpr TensorRTPhase kRuntime = TensorRTPhase::kRUNTIME;
  const FieldValue height = int32_field("height", 8), stamp = int32_field("schema_version", 1);
  return {
      {"Rasterize", {int32_field("hight", 8)}, "Rasterize: unknown field \"hight\""},
      {"Rasterize", {int32_field(std::string(200, 'x'), 8)}, "Rasterize: unknown field \"" + std::string(64, 'x')},
      {"Rasterize", {int32_field("a\nb", 8)}, "Rasterize: unknown field \"a?b\""},
      {"Rasterize", {height, height}, "Rasterize: field height is given twice"},
      {"Rasterize", {float_field("height", 8)}, "field height must be one integer of 32 bits, got float32"},
      {"Rasterize", {text_field("height", "8")}, "field height must be one integer of 32 bits, got char"},
      {"Rasterize", {with(height, 2)}, "field height must be one integer of 32 bits, got 2 values"},
      {"Rasterize", {with(height, -1)}, "field height must be one integer of 32 bits, got -1 values"},
      {"Rasterize", {without_data(height)}, "field height must be one integer of 32 bits, got no data"},
      {"Rasterize", {int64_field("height", int64_t(1) << 32)}, "must be one integer of 32 bits, got 4294967296"},
      {"Rasterize", {{"height", PluginFieldType(77), 1, "abcd"}}, "got type code 77"},
      {"Rasterize", {int32_field("height", -1)}, "height must be in [1, 32768], got -1"},
      {"Rasterize", {int32_field("height", 32769)}, "height must be in [1, 32768], got 32769"},
      {"Rasterize", {int32_field("depth_clip", 2)}, "field depth_clip must be 0 or 1, got 2"},
      {"Rasterize", {text_field("cull", "front")}, "field cull must be \"none\" or \"back\", got \"front\""},
      {"Rasterize", {text_field("cull", "")}, "field cull must be \"none\" or \"back\", got \"\""},
      {"Rasterize", {with(text_field("cull", "back"), 1000000)}, "got text of length 1000000"},
      {"Rasterize", {int32_field("cull", 1)}, "field cull must be \"none\" or \"back\", got int32"},
      {"SoftMask", {float_field("sigmainv", 0)}, "sigmainv must be above 0"},
      {"SoftMask", {float_field("sigmainv", NAN)}, "sigmainv must be above 0"},
      {"SoftMask", {float_field("boxlen", -1)}, "boxlen must be at least 0"},
      {"SoftMask", {float_field("boxlen", INFINITY)}, "boxlen must be at least 0"},
      {"SoftMask", {int32_field("sigmainv", 7000)}, "field sigmainv must be one float32, got int32"},
      {"SoftMask", {int32_field("knum", 0)}, "knum must be in [1, "},
      {"Render", {text_field("outputs", "")}, "Render: field outputs must be a list with commas of color mask"},
      {"Render", {text_field("outputs", "color,")}, "interpolated_2, got \"color,\""},
      {"Render", {text_field("outputs", "color;mask")}, "interpolated_2, got \"color;mask\""},
      {"Render", {text_field("outputs", "mask,mask")}, "interpolated_2, got \"mask,mask\""},
      {"Render", {int32_field("outputs", 3)}, "Render: field outputs must be a list with commas"},
      {"Render", {with(text_field("outputs", "mask"), 100000)}, "got text of length 100000"},
      {"Render", {without_data(text_field("outputs", "mask"))}, "got no data"},
      {"Render", {int32_field("knum", 0)}, "render: knum must be in [1, "},
      {"Interpolate", {height}, "Interpolate: unknown field \"height\""},
      {"Antialias", {height}, "Antialias: unknown field \"height\""},
      {"Antialias", {}, "Antialias: field schema_version is missing", kRuntime},
      {"Antialias", {int32_field("schema_version", 2)}, "Antialias: made for op schema version 2", kRuntime},
      {"Interpolate",
       {int32_field("schema_version", 2)},
       "made for op schema version 2, but this library has version 1"},
      {"Interpolate", {}, "Interpolate: field schema_version is missing", kRuntime},
      {"Interpolate", {int32_field("schema_version", 99), height}, "made for op schema version 99", kRuntime},
      {"Texture", {stamp, text_field("wrap", "clamp")}, "Texture: field filter is missing", kRuntime},
      {"Texture",
       {text_field("filter", "bilinear"), text_field("wrap", "clamp")},
       "schema_version is missing",
       kRuntime},
  };
}

void expect_refused(const Plugins& plugins, const Refusal& refusal) {
  const int64_t before = plugins.log.count;
  const Plugin plugin = plugins.create(refusal.op, refusal.fields, refusal.phase);
  expect(!plugin && plugins.log.count == before + 1, refusal.says + ": is refused with one message");
  expect(plugins.log.last.find(refusal.says) != std::string::npos,
         refusal.says + ": expected in the message " + plugins.log.last);
}

void expect_hostile_collections_refused(const Plugins& plugins) {
  nvinfer1::IPluginCreatorV3One& creator = plugins.creator("Rasterize");
  const nvinfer1::PluginField nameless(nullptr, "abcd", PluginFieldType::kINT32, 1);
  const nvinfer1::PluginFieldCollection collections[] = {
      {-1, nullptr}, {1, nullptr}, {INT32_MAX, &nameless}, {INT32_MIN, &nameless}, {1, &nameless}};
  for (const TensorRTPhase phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
    for (const auto& collection : collections) {
      expect(creator.createPlugin("layer", &collection, phase) == nullptr,
             "a collection of " + std::to_string(collection.nbFields) + " fields is refused");
    }
    expect(creator.createPlugin(nullptr, nullptr, phase) == nullptr, "no collection is refused");
  }
}

// What the creator declares, which the ONNX parser asks a node for.
void expect_declared(const Plugins& plugins, const std::string& op) {
  nvinfer1::IPluginCreatorV3One& creator = plugins.creator(op);
  expect(std::string(creator.getPluginVersion()) == "1", op + ": version");
  expect(std::string(creator.getPluginNamespace()) == "ai.dibr", op + ": namespace");
  const FieldValues complete = valid_fields(op, 0);
  const nvinfer1::PluginFieldCollection* declared = creator.getFieldNames();
  expect(declared->nbFields + 1 == int32_t(complete.size()), op + ": all fields but the stamp are declared");
  for (int32_t i = 0; i < declared->nbFields; ++i) {
    expect(declared->fields[i].name == complete[size_t(i) + 1].name, op + ": name of field " + std::to_string(i));
    expect(declared->fields[i].type == complete[size_t(i) + 1].type, op + ": type of field " + std::to_string(i));
  }
}

void expect_defaults(const Plugins& plugins) {
  const auto describe = [&](const std::string& op) {
    return std::string(plugins.create(op, {}).build().getMetadataString());
  };
  expect(describe("Rasterize") == "Rasterize(height=0, width=0, perspective_correct=1, cull=none, depth_clip=1)",
         describe("Rasterize"));
  expect(describe("SoftMask").find("SoftMask(sigmainv=7000, boxlen=0.01999") == 0, describe("SoftMask"));
  expect(describe("SoftMask").find(", knum=30)") != std::string::npos, describe("SoftMask"));
  expect(describe("Texture") == "Texture(filter=bilinear, wrap=clamp)", describe("Texture"));
  expect(describe("Interpolate") == "Interpolate()", describe("Interpolate"));
  expect(describe("Antialias") == "Antialias()", describe("Antialias"));
  expect(
      describe("Render").find("Render(outputs=face_index, height=0, width=0, perspective_correct=1, cull=none, ") == 0,
      describe("Render"));
}

void expect_taken(const Plugins& plugins, const std::string& op, const FieldValues& fields, TensorRTPhase phase) {
  expect(is_allowed(op, fields, phase), op + ": the rules allow what is taken");
  const Plugin plugin = plugins.create(op, fields, phase);
  expect(bool(plugin), op + ": " + plugins.log.last);
  expect(std::string(plugin.core().getPluginName()) == op, "a plugin knows its name");
  expect(std::string(plugin.core().getPluginVersion()) == "1", "a plugin knows its version");
  expect(std::string(plugin.core().getPluginNamespace()) == "ai.dibr", "a plugin knows its namespace");
}

}  // namespace

void test_fields(const Plugins& plugins) {
  for (const Refusal& refusal : refusals()) {
    expect(!is_allowed(refusal.op, refusal.fields, refusal.phase), refusal.says + ": the rules refuse it");
    expect_refused(plugins, refusal);
  }
  expect_hostile_collections_refused(plugins);
  expect_defaults(plugins);
  for (const std::string& op : kOpNames) {
    expect_declared(plugins, op);
    for (uint64_t variant = 0; variant < 50; ++variant) {
      const FieldValues fields = valid_fields(op, variant);
      expect_taken(plugins, op, fields, TensorRTPhase::kBUILD);
      expect_taken(plugins, op, fields, TensorRTPhase::kRUNTIME);
      const Plugin plugin = plugins.create(op, fields, TensorRTPhase::kRUNTIME);
      expect(written_fields(plugin) == fields, op + ": what was read is written again");
    }
  }
  // As parsers write them: 64-bit integers, text with the zero that ends it.
  expect_taken(plugins, "Rasterize", {int64_field("height", 7), int64_field("width", 9)}, TensorRTPhase::kBUILD);
  expect_taken(plugins, "Texture", {text_field("wrap", std::string("mirror\0", 7))}, TensorRTPhase::kBUILD);
  expect_taken(plugins, "Render", {text_field("outputs", std::string("mask,color\0", 11))}, TensorRTPhase::kBUILD);
}

}  // namespace dibr::test
