// Fields and tensor descriptions that nobody should write, drawn at random: each is refused with a message, or is
// allowed by the rules and survives being written and read again.
#include <cctype>
#include <cmath>
#include <random>

#include "tensorrt_door/plugins.h"
#include "tensorrt_door/rules.h"

namespace dibr::test {
namespace {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

class Attacker {
 public:
  explicit Attacker(uint64_t seed) : engine_(seed) {}

  uint64_t below(uint64_t count) { return engine_() % count; }
  bool once_in(uint64_t count) { return below(count) == 0; }
  template <class T>
  const T& any(const std::vector<T>& items) {
    return items[below(items.size())];
  }

  FieldValues fields(const std::string& op) {
    FieldValues fields = valid_fields(op, engine_());
    for (uint64_t changes = below(4); changes > 0; --changes) change(&fields);
    return fields;
  }

  PluginTensorDesc desc(DataType likely_type, const std::vector<int64_t>& likely_shape) {
    PluginTensorDesc desc{};
    desc.type = once_in(30) ? DataType(int32_t(once_in(2) ? engine_() : below(12))) : likely_type;
    desc.format = once_in(50) ? nvinfer1::TensorFormat(int32_t(below(20))) : nvinfer1::TensorFormat::kLINEAR;
    desc.dims = dims(likely_shape);
    return desc;
  }
  nvinfer1::Dims dims(const std::vector<int64_t>& likely_shape) {
    nvinfer1::Dims dims{};
    for (const int64_t size : likely_shape) dims.d[dims.nbDims++] = size;
    if (once_in(12)) dims.d[below(nvinfer1::Dims::MAX_DIMS)] = any(kExtents);
    if (once_in(50)) dims.nbDims = int32_t(below(13)) - 2;
    if (once_in(200)) dims.nbDims = int32_t(engine_());
    return dims;
  }

 private:
  void change(FieldValues* fields) {
    if (fields->empty() || once_in(10)) {
      fields->push_back(int32_field(any(kNames), int32_t(engine_())));
      return;
    }
    const size_t index = below(fields->size());
    FieldValue& field = (*fields)[index];
    switch (below(10)) {
      case 0:
        fields->erase(fields->begin() + long(index));
        return;
      case 1:
        field.name = any(kNames);
        return;
      case 2:
        fields->push_back(field);
        return;
      case 3:
        field.has_data = false;
        return;
      case 4:
        set(&field, PluginFieldType(once_in(4) ? int32_t(engine_()) : int32_t(below(14))), random_bytes(8));
        return;
      case 5:  // truncated, or longer than it says: the memory always holds what is read of a length that is accepted
        field.length = any(kLengths);
        if (field.type == PluginFieldType::kCHAR && field.length > 0 && field.length <= 64) {
          field.bytes.resize(size_t(field.length), 'x');
        }
        return;
      case 6:
        set(&field, PluginFieldType::kINT32, bytes_of(any(kIntegers)));
        return;
      case 7:
        set(&field, PluginFieldType::kFLOAT32, bytes_of(any(kReals)));
        return;
      case 8: {
        std::string text = any(kTexts);
        field.length = int32_t(text.size());
        field.type = PluginFieldType::kCHAR;
        field.bytes = text;
        return;
      }
      default:
        if (!field.bytes.empty()) field.bytes[below(field.bytes.size())] ^= char(1 << below(8));
    }
  }

  static void set(FieldValue* field, PluginFieldType type, std::string bytes) {
    field->type = type;
    field->length = 1;
    field->bytes = std::move(bytes);
  }
  std::string random_bytes(size_t count) {
    std::string bytes(count, '\0');
    for (char& byte : bytes) byte = char(engine_());
    return bytes;
  }
  template <class T>
  static std::string bytes_of(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  }

  const std::vector<std::string> kNames = {"height", "width",          "perspective_correct",
                                           "cull",   "depth_clip",     "sigmainv",
                                           "boxlen", "knum",           "filter",
                                           "wrap",   "schema_version", "",
                                           "Height", "height ",        std::string(5000, 'h'),
                                           "%s%n"};
  const std::vector<std::string> kTexts = {"none",
                                           "back",
                                           "nearest",
                                           "bilinear",
                                           "clamp",
                                           "repeat",
                                           "mirror",
                                           "",
                                           std::string(1, '\0'),
                                           std::string("none\0", 5),
                                           std::string("none\0\0", 6),
                                           "NONE",
                                           "trilinear",
                                           std::string(32, 'c'),
                                           std::string(33, 'c'),
                                           "\x80\xff"};
  const std::vector<int32_t> kIntegers = {0, 1, 2, -1, 30, 32768, 32769, INT32_MAX, INT32_MIN};
  const std::vector<float> kReals = {0.0f,    -0.0f,    1e-45f,    1.0f, -1.0f,  1e30f,
                                     1.1e30f, INFINITY, -INFINITY, NAN,  7000.0f};
  const std::vector<int32_t> kLengths = {-1, 0, 1, 2, 4, 5, 31, 32, 33, INT32_MAX, INT32_MIN};
  const std::vector<int64_t> kExtents = {0, 1, 2, 3, 4, -1, -2, 32768, 32769, 1 << 30, INT32_MAX, INT64_MAX, INT64_MIN};
  std::mt19937_64 engine_;
};

struct Counts {
  int64_t taken = 0, refused = 0, descs_taken = 0, descs_refused = 0;
};

void attack_fields(const Plugins& plugins, Attacker* attacker, const std::string& op, Counts* counts) {
  const FieldValues fields = attacker->fields(op);
  const TensorRTPhase phase = attacker->once_in(2) ? TensorRTPhase::kBUILD : TensorRTPhase::kRUNTIME;
  const int64_t messages = plugins.log.count;
  const Plugin plugin = plugins.create(op, fields, phase);
  const bool allowed = is_allowed(op, fields, phase);
  ++(plugin ? counts->taken : counts->refused);
  expect(bool(plugin) == allowed,
         op + (allowed ? " refuses what the rules allow: " : " takes what the rules refuse: ") + plugins.log.last);
  if (!plugin) {
    expect(plugins.log.count == messages + 1 && plugins.log.last.size() > op.size() &&
               std::toupper(plugins.log.last[0]) == op[0],
           op + " refuses with one message that names it: " + plugins.log.last);
    return;
  }
  const FieldValues written = written_fields(plugin);
  const Plugin again = plugins.create(op, written, TensorRTPhase::kRUNTIME);
  expect(again && written_fields(again) == written, op + ": what was taken survives an engine");
}

struct Likely {
  DataType type;
  std::vector<int64_t> shape;
};
constexpr DataType kFloat = DataType::kFLOAT, kHalf = DataType::kHALF, kInt32 = DataType::kINT32;

const std::map<std::string, std::vector<Likely>> kLikely = {
    {"Rasterize",
     {{kFloat, {2, 5, 4}},
      {kInt32, {3, 3}},
      {kInt32, {2, 2}},
      {kInt32, {2, 3}},
      {kInt32, {2, 8, 9}},
      {kFloat, {2, 8, 9, 3}},
      {kFloat, {2, 8, 9}}}},
    {"Interpolate",
     {{kHalf, {2, 5, 4}}, {kInt32, {3, 3}}, {kInt32, {2, 8, 9}}, {kFloat, {2, 8, 9, 3}}, {kHalf, {2, 8, 9, 4}}}},
    {"SoftMask", {{kFloat, {2, 5, 4}}, {kInt32, {3, 3}}, {kInt32, {2, 8, 9}}, {kInt32, {2, 2}}, {kFloat, {2, 8, 9}}}},
    {"Texture", {{kFloat, {1, 4, 6, 7}}, {kFloat, {2, 8, 9, 2}}, {kFloat, {2, 8, 9}}, {kFloat, {2, 8, 9, 4}}}},
    {"Antialias",
     {{kHalf, {2, 8, 9, 4}},
      {kFloat, {2, 5, 4}},
      {kInt32, {3, 3}},
      {kInt32, {2, 8, 9}},
      {kFloat, {2, 8, 9, 3}},
      {kInt32, {2, 2}},
      {kHalf, {2, 8, 9, 4}}}},
    {"Render",
     {{kFloat, {2, 5, 4}},
      {kInt32, {3, 3}},
      {kFloat, {1, 7, 2}},
      {kInt32, {3, 3}},
      {kHalf, {1, 4, 6, 7}},
      {kFloat, {2, 5, 3}},
      {kInt32, {3, 3}},
      {kFloat, {1, 5, 3}},
      {kInt32, {3, 3}},
      {kFloat, {1, 1, 1}},
      {kInt32, {3, 3}},
      {kInt32, {2, 2}},
      {kInt32, {2, 3}},
      {kInt32, {2, 8, 9}}}}};

bool agree(const std::string& op, const std::vector<PluginTensorDesc>& inputs, int32_t input_count,
           const PluginTensorDesc* outputs, int32_t output_count) {
  std::vector<nvinfer1::Dims> in, out;
  for (int32_t i = 0; i < input_count; ++i) in.push_back(inputs[size_t(i)].dims);
  for (int32_t i = 0; i < output_count; ++i) out.push_back(outputs[i].dims);
  return shapes_agree(op, in, out);
}

void attack_descs(const Plugin& plugin, Attacker* attacker, const std::string& op, Counts* counts) {
  const auto& likely = kLikely.at(op);
  const int32_t outputs = plugin.build().getNbOutputs();
  const auto inputs = int32_t(likely.size()) - outputs;
  std::vector<PluginTensorDesc> descs;
  std::vector<DynamicPluginTensorDesc> dynamic;
  std::vector<DataType> types;
  for (const Likely& tensor : likely) {
    const auto& shape = tensor.shape;
    descs.push_back(attacker->desc(tensor.type, shape));
    dynamic.push_back({descs.back(), attacker->dims(shape), attacker->dims(shape), attacker->dims(shape)});
    types.push_back(descs.back().type);
  }
  // Up to as many as there is memory for.
  const auto any_count = [&](int32_t most) { return most - int32_t(attacker->below(10)); };
  const int32_t given = attacker->once_in(10) ? any_count(inputs) : inputs;
  const int32_t wanted = attacker->once_in(10) ? any_count(outputs) : outputs;
  const PluginTensorDesc* out = descs.data() + inputs;
  const DynamicPluginTensorDesc* dynamic_out = dynamic.data() + inputs;
  const bool changed = plugin.runtime().onShapeChange(descs.data(), given, out, wanted) == 0;
  if (changed) expect(agree(op, descs, given, out, wanted), op + " takes shapes that do not agree");
  const bool configured = plugin.build().configurePlugin(dynamic.data(), given, dynamic_out, wanted) == 0;
  const size_t bytes = plugin.build().getWorkspaceSize(dynamic.data(), given, dynamic_out, wanted);
  expect(configured == (bytes < size_t(INT64_MAX)), op + ": what is configured has a workspace");
  for (int32_t position = -1; position <= inputs + outputs; ++position) {
    const bool supported = plugin.build().supportsFormatCombination(position, dynamic.data(), given, wanted);
    expect(!supported || (position >= 0 && position < given + wanted), op + " supports a tensor that it has not");
  }
  const bool typed = plugin.build().getOutputDataTypes(types.data() + inputs, wanted, types.data(), given) == 0;
  expect(typed || !changed, op + " has no output types for inputs that it takes");
  for (int32_t i = 0; changed && i < wanted; ++i) {
    expect(types[size_t(inputs + i)] == out[i].type, op + " takes outputs of other types than it gives");
  }
  ++(changed ? counts->descs_taken : counts->descs_refused);
}

}  // namespace

void test_hostile(const Plugins& plugins, int64_t iterations, uint64_t seed) {
  Attacker attacker(seed);
  Counts counts;
  std::map<std::string, std::vector<Plugin>> targets;
  for (const std::string& op : kOpNames) targets[op].push_back(plugins.create(op, {}));
  targets["Texture"].push_back(plugins.create("Texture", {text_field("filter", "trilinear")}));
  for (int64_t i = 0; i < iterations && failures < 20; ++i) {
    const std::string& op = attacker.any(kOpNames);
    if (attacker.once_in(4)) {
      attack_descs(attacker.any(targets[op]), &attacker, op, &counts);
    } else {
      attack_fields(plugins, &attacker, op, &counts);
    }
  }
  std::printf("seed %llu: fields taken %lld, refused %lld; descriptions taken %lld, refused %lld\n",
              static_cast<unsigned long long>(seed), static_cast<long long>(counts.taken),
              static_cast<long long>(counts.refused), static_cast<long long>(counts.descs_taken),
              static_cast<long long>(counts.descs_refused));
  expect(counts.taken > iterations / 10 && counts.refused > iterations / 10, "both kinds of fields were drawn");
  expect(counts.descs_taken > iterations / 100 && counts.descs_refused > iterations / 100,
         "both kinds of descriptions were drawn");
}

}  // namespace dibr::test
