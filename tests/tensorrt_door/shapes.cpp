// getOutputDataTypes and getOutputShapes over every combination of inputs.
#include "tensorrt_door/plugins.h"

namespace dibr::test {
namespace {

using Words = std::vector<std::string>;
using Shapes = std::vector<Words>;

struct Case {
  std::string op;
  FieldValues fields;
  Shapes inputs;
  Words shape_input;  // values of image_size; empty where it is absent
  Shapes outputs;     // empty where the shapes are refused
};

struct Answer {
  bool accepted;
  Shapes shapes;
};

Answer ask(const Plugin& plugin, const Shapes& inputs, const Words& shape_input) {
  Dimensions dimensions;
  std::vector<nvinfer1::DimsExprs> in;
  for (const Words& shape : inputs) in.push_back(dimensions.shape(shape));
  const nvinfer1::DimsExprs values = dimensions.shape(shape_input);
  std::vector<nvinfer1::DimsExprs> out(size_t(plugin.build().getNbOutputs()));
  const int32_t status = plugin.build().getOutputShapes(
      in.data(), int32_t(in.size()), &values, shape_input.empty() ? 0 : 1, out.data(), int32_t(out.size()), dimensions);
  Answer answer{status == 0, {}};
  for (const nvinfer1::DimsExprs& dims : out) {
    if (status == 0) answer.shapes.push_back(Dimensions::words(dims));
  }
  return answer;
}

std::string text_of(const Shapes& shapes) {
  std::string text;
  for (const Words& shape : shapes) {
    text += "[";
    for (const std::string& word : shape) text += word + " ";
    text += "] ";
  }
  return text;
}

void check(const Plugins& plugins, const Case& c) {
  const Plugin plugin = plugins.create(c.op, c.fields);
  if (!expect(bool(plugin), c.op + ": " + plugins.log.last)) return;
  const Answer answer = ask(plugin, c.inputs, c.shape_input);
  expect(answer.shapes == c.outputs,
         c.op + " of " + text_of(c.inputs) + "gives " + text_of(answer.shapes) + "; " + plugins.log.last);
  if (c.outputs.empty()) {
    expect(!answer.accepted && plugins.log.last.find(c.op + ": ") == 0, "a refusal names the op");
  }
}

const FieldValues kImage = {int32_field("height", 32), int32_field("width", 48)};

std::vector<Case> rasterize_cases() {
  const Shapes all = {{"B", "V", "4"}, {"F", "3"}, {"B", "2"}, {"B", "F"}};
  const auto outputs = [](const std::string& b, const std::string& h, const std::string& w) {
    return Shapes{{b, h, w}, {b, h, w, "3"}, {b, h, w}};
  };
  std::vector<Case> cases;
  for (size_t count = 2; count <= 4; ++count) {
    const Shapes inputs(all.begin(), all.begin() + long(count));
    cases.push_back({"Rasterize", kImage, inputs, {}, outputs("B", "32", "48")});
    cases.push_back({"Rasterize", {}, inputs, {"H", "W"}, outputs("B", "H", "W")});
    cases.push_back({"Rasterize", kImage, inputs, {"H", "W"}, outputs("B", "H", "W")});
    cases.push_back({"Rasterize", {}, inputs, {"5", "6"}, outputs("B", "5", "6")});
    cases.push_back({"Rasterize", {}, inputs, {}, {}});
    cases.push_back({"Rasterize", {kImage[0]}, inputs, {}, {}});
    cases.push_back({"Rasterize", {}, inputs, {"H"}, {}});
    cases.push_back({"Rasterize", {}, inputs, {"H", "W", "C"}, {}});
  }
  // A number is worth more than a symbol, and two that differ are refused.
  cases.push_back({"Rasterize", kImage, {{"b", "V", "4"}, {"F", "3"}, {"7", "2"}}, {}, outputs("7", "32", "48")});
  cases.push_back({"Rasterize", kImage, {{"6", "V", "4"}, {"F", "3"}, {"7", "2"}}, {}, {}});
  cases.push_back({"Rasterize", kImage, {{"B", "V", "3"}, {"F", "3"}}, {}, {}});
  cases.push_back({"Rasterize", kImage, {{"B", "V", "n"}, {"F", "m"}}, {}, outputs("B", "32", "48")});
  cases.push_back({"Rasterize", kImage, {{"V", "4"}, {"F", "3"}}, {}, {}});
  cases.push_back({"Rasterize", kImage, {{"B", "V", "4"}}, {}, {}});
  cases.push_back({"Rasterize", kImage, {{"B", "V", "4"}, {"F", "3"}, {"B", "2"}, {"B", "F"}, {"2"}}, {}, {}});
  return cases;
}

std::vector<Case> other_cases() {
  return {
      {"Interpolate",
       {},
       {{"1", "V", "D"}, {"F", "3"}, {"B", "H", "W"}, {"B", "H", "W", "3"}},
       {},
       {{"B", "H", "W", "D"}}},
      {"Interpolate",
       {},
       {{"2", "9", "5"}, {"7", "3"}, {"2", "6", "8"}, {"2", "6", "8", "3"}},
       {},
       {{"2", "6", "8", "5"}}},
      {"Interpolate", {}, {{"2", "9", "5"}, {"7", "3"}, {"2", "6", "8"}, {"2", "6", "9", "3"}}, {}, {}},
      {"Interpolate", {}, {{"2", "9", "5"}, {"7", "3"}, {"2", "6", "8"}, {"2", "6", "8", "4"}}, {}, {}},
      {"Interpolate", {}, {{"2", "9", "5"}, {"7", "3"}, {"2", "6", "8"}}, {}, {}},
      {"Interpolate", {}, {{"1", "V", "D"}, {"F", "3"}, {"B", "H", "W"}, {"B", "H", "W", "3"}}, {"H", "W"}, {}},
      {"SoftMask", {}, {{"B", "V", "4"}, {"F", "3"}, {"B", "H", "W"}}, {}, {{"B", "H", "W"}}},
      {"SoftMask", {}, {{"B", "V", "4"}, {"F", "3"}, {"B", "H", "W"}, {"B", "2"}}, {}, {{"B", "H", "W"}}},
      {"SoftMask", {}, {{"3", "V", "4"}, {"F", "3"}, {"4", "H", "W"}}, {}, {}},
      {"SoftMask", {}, {{"B", "V", "4"}, {"F", "3"}, {"B", "H", "W"}, {"B", "3"}}, {}, {}},
      {"Texture", {}, {{"A", "C", "Ht", "Wt"}, {"B", "H", "W", "2"}}, {}, {{"B", "H", "W", "C"}}},
      {"Texture", {}, {{"1", "3", "16", "8"}, {"2", "9", "9", "2"}}, {}, {{"2", "9", "9", "3"}}},
      {"Texture", {}, {{"1", "3", "16", "8"}, {"B", "H", "W", "2"}, {"B", "H", "W"}}, {}, {{"B", "H", "W", "3"}}},
      {"Texture", {}, {{"1", "3", "16", "8"}, {"2", "9", "9", "2"}, {"2", "9", "8"}}, {}, {}},
      {"Texture", {}, {{"1", "3", "16", "8"}, {"2", "9", "9", "3"}}, {}, {}},
      {"Texture", {}, {{"1", "3", "16"}, {"2", "9", "9", "2"}}, {}, {}},
      {"Antialias",
       {},
       {{"B", "H", "W", "C"}, {"B", "V", "4"}, {"F", "3"}, {"B", "H", "W"}, {"B", "H", "W", "3"}},
       {},
       {{"B", "H", "W", "C"}}},
      {"Antialias",
       {},
       {{"2", "8", "9", "3"}, {"B", "V", "4"}, {"F", "3"}, {"B", "H", "W"}, {"B", "H", "W", "3"}, {"B", "2"}},
       {},
       {{"2", "8", "9", "3"}}},
      {"Antialias",
       {},
       {{"2", "8", "9", "3"}, {"3", "V", "4"}, {"F", "3"}, {"2", "8", "9"}, {"2", "8", "9", "3"}},
       {},
       {}},
      {"Antialias", {}, {{"B", "H", "W", "C"}, {"B", "V", "4"}, {"F", "3"}, {"B", "H", "W"}}, {}, {}},
  };
}

// The arguments that its field chooses.
std::vector<Case> render_cases() {
  const auto with_outputs = [](const std::string& outputs) {
    return FieldValues{kImage[0], kImage[1], text_field("outputs", outputs)};
  };
  const Shapes mesh = {{"B", "V", "4"}, {"F", "3"}};
  const Shapes uvs = {{"1", "Vt", "2"}, {"F", "3"}}, texture = {{"A", "C", "Ht", "Wt"}};
  const auto join = [](std::vector<Shapes> parts) {
    Shapes all;
    for (const Shapes& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  };
  const Shapes first = {{"B", "V0", "D0"}, {"F", "3"}}, second = {{"1", "V1", "5"}, {"F", "3"}},
               third = {{"1", "1", "1"}, {"F", "3"}};
  const Shapes rest = {{"B", "2"}, {"B", "F"}};
  const Words image = {"B", "32", "48"}, three = {"B", "32", "48", "3"};
  return {
      {"Render", with_outputs("mask"), mesh, {}, {image}},
      {"Render", with_outputs("mask,depth,face_index"), mesh, {}, {image, image, image}},
      {"Render", with_outputs("barycentrics,mask"), mesh, {"H", "W"}, {{"B", "H", "W"}, {"B", "H", "W", "3"}}},
      {"Render", {text_field("outputs", "mask")}, mesh, {}, {}},
      {"Render", with_outputs("uv"), join({mesh, uvs}), {}, {{"B", "32", "48", "2"}}},
      {"Render", with_outputs("uv"), mesh, {}, {}},
      {"Render", with_outputs("uv"), join({mesh, {{"1", "Vt", "3"}, {"F", "3"}}}), {}, {}},
      {"Render", with_outputs("color"), join({mesh, uvs, texture}), {}, {{"B", "32", "48", "C"}}},
      {"Render", with_outputs("color"), join({mesh, uvs}), {}, {}},
      {"Render",
       with_outputs("interpolated_1,interpolated_0"),
       join({mesh, uvs, texture, first, second}),
       {},
       {{"B", "32", "48", "D0"}, {"B", "32", "48", "5"}}},
      {"Render", with_outputs("interpolated_1"), join({mesh, uvs, texture, first}), {}, {}},
      {"Render",
       with_outputs("interpolated_2"),
       join({mesh, uvs, texture, first, second, third}),
       {},
       {{"B", "32", "48", "1"}}},
      {"Render", with_outputs("mask"), join({mesh, uvs, texture, first, second, third, rest}), {}, {image}},
      {"Render",
       with_outputs("mask"),
       join({mesh, uvs, texture, first, second, third, {{"7", "2"}}}),
       {},
       {{"7", "32", "48"}}},
      {"Render", with_outputs("mask"), join({mesh, {{"1", "Vt", "2"}, {"9", "3"}, {"1", "1", "1"}}}), {}, {}},
  };
}

struct Types {
  std::string op;
  std::vector<DataType> inputs, outputs;  // outputs are empty where the types are refused
  FieldValues fields = {};
};

void check_types(const Plugins& plugins, const Types& types) {
  const Plugin plugin = plugins.create(types.op, types.fields);
  std::vector<DataType> actual(size_t(plugin.build().getNbOutputs()), DataType::kBOOL);
  const int32_t status = plugin.build().getOutputDataTypes(actual.data(), int32_t(actual.size()), types.inputs.data(),
                                                           int32_t(types.inputs.size()));
  expect(types.outputs.empty() ? status != 0 : status == 0 && actual == types.outputs, types.op + ": output types");
}

}  // namespace

void test_shapes(const Plugins& plugins) {
  for (const Case& c : rasterize_cases()) check(plugins, c);
  for (const Case& c : other_cases()) check(plugins, c);
  for (const Case& c : render_cases()) check(plugins, c);

  constexpr DataType f32 = DataType::kFLOAT, i32 = DataType::kINT32, i64 = DataType::kINT64;
  check_types(plugins, {"Rasterize", {f32, i32}, {i32, f32, f32}});
  check_types(plugins, {"Rasterize", {f32, i32, i32, i32}, {i32, f32, f32}});
  check_types(plugins, {"Rasterize", {f32, i64}, {}});
  check_types(plugins, {"Rasterize", {DataType::kHALF, i32}, {}});
  check_types(plugins, {"SoftMask", {f32, i32, i32}, {f32}});
  for (const DataType real : {f32, DataType::kHALF, DataType::kBF16}) {
    check_types(plugins, {"Interpolate", {real, i32, i32, f32}, {real}});
    check_types(plugins, {"Texture", {real, f32}, {real}});
    check_types(plugins, {"Antialias", {real, f32, i32, i32, f32}, {real}});
  }
  check_types(plugins, {"Interpolate", {DataType::kHALF, i32, i32, DataType::kHALF}, {}});
  check_types(plugins, {"Texture", {DataType::kINT8, f32}, {}});
  constexpr DataType half = DataType::kHALF, bf16 = DataType::kBF16;
  check_types(plugins, {"Render", {f32, i32}, {i32}});
  check_types(plugins, {"Render", {half, i32}, {}});
  const FieldValues outputs = {text_field("outputs", "color,face_index,uv,interpolated_0")};
  check_types(plugins, {"Render", {f32, i32, f32, i32, half, bf16, i32}, {half, i32, f32, bf16}, outputs});
  check_types(plugins, {"Render", {f32, i32, half, i32, half, bf16, i32}, {}, outputs});
  check_types(plugins, {"Render", {f32, i32, f32, i32, half, bf16, i32, half, i32}, {}, outputs});
}

}  // namespace dibr::test
