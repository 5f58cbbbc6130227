// supportsFormatCombination: TensorRT walks over all prefixes of types and formats that the plugin has accepted.
#include <array>

#include "tensorrt_door/plugins.h"

namespace dibr::test {
namespace {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr int kTypes = 12;
constexpr std::array<TensorFormat, 4> kFormats = {TensorFormat::kLINEAR, TensorFormat::kCHW2, TensorFormat::kHWC8,
                                                  TensorFormat::kCHW32};

using Combination = std::vector<DataType>;

struct Walk {
  const Plugin& plugin;
  int inputs, outputs;
  std::vector<DynamicPluginTensorDesc> tensors;
  std::vector<Combination> accepted;

  void from(int position) {
    if (position == inputs + outputs) {
      Combination types;
      for (const DynamicPluginTensorDesc& tensor : tensors) types.push_back(tensor.desc.type);
      accepted.push_back(types);
      return;
    }
    for (int type = 0; type < kTypes; ++type) {
      for (const TensorFormat format : kFormats) {
        tensors[size_t(position)].desc.type = DataType(type);
        tensors[size_t(position)].desc.format = format;
        if (!plugin.build().supportsFormatCombination(position, tensors.data(), inputs, outputs)) continue;
        expect(format == TensorFormat::kLINEAR, "only linear formats are taken");
        from(position + 1);
      }
    }
  }
};

void check(const Plugins& plugins, const std::string& op, int inputs, const std::vector<Combination>& expected,
           const FieldValues& fields = {}) {
  const Plugin plugin = plugins.create(op, fields);
  const int outputs = plugin.build().getNbOutputs();
  Walk walk{plugin, inputs, outputs, std::vector<DynamicPluginTensorDesc>(size_t(inputs + outputs)), {}};
  walk.from(0);
  expect(walk.accepted == expected, op + " with " + std::to_string(inputs) + " inputs takes " +
                                        std::to_string(walk.accepted.size()) + " combinations of types");
  for (const int position : {-1, inputs + outputs, 1000}) {
    expect(!plugin.build().supportsFormatCombination(position, walk.tensors.data(), inputs, outputs),
           op + ": a position that does not exist is not supported");
  }
}

}  // namespace

void test_formats(const Plugins& plugins) {
  constexpr DataType f32 = DataType::kFLOAT, i32 = DataType::kINT32;
  check(plugins, "Rasterize", 2, {{f32, i32, i32, f32, f32}});
  check(plugins, "Rasterize", 3, {{f32, i32, i32, i32, f32, f32}});
  check(plugins, "Rasterize", 4, {{f32, i32, i32, i32, i32, f32, f32}});
  check(plugins, "SoftMask", 3, {{f32, i32, i32, f32}});
  check(plugins, "SoftMask", 4, {{f32, i32, i32, i32, f32}});
  std::vector<Combination> interpolate, texture, texture_with_levels, antialias, antialias_with_ranges;
  for (const DataType real : {f32, DataType::kHALF, DataType::kBF16}) {
    interpolate.push_back({real, i32, i32, f32, real});
    texture.push_back({real, f32, real});
    texture_with_levels.push_back({real, f32, f32, real});
    antialias.push_back({real, f32, i32, i32, f32, real});
    antialias_with_ranges.push_back({real, f32, i32, i32, f32, i32, real});
  }
  check(plugins, "Interpolate", 4, interpolate);
  check(plugins, "Texture", 2, texture);
  check(plugins, "Texture", 3, texture_with_levels);
  check(plugins, "Antialias", 5, antialias);
  check(plugins, "Antialias", 6, antialias_with_ranges);
  check(plugins, "Render", 2, {{f32, i32, i32}});
  // The texture and the attributes may be stored differently.
  std::vector<Combination> render;
  for (const DataType texel : {f32, DataType::kHALF, DataType::kBF16}) {
    for (const DataType real : {f32, DataType::kHALF, DataType::kBF16}) {
      render.push_back({f32, i32, f32, i32, texel, real, i32, real, i32, texel, f32, real, real});
    }
  }
  check(plugins, "Render", 9, render, {text_field("outputs", "color,mask,interpolated_0,interpolated_1")});
}

}  // namespace dibr::test
