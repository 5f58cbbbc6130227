#include "tensorrt/fields.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "tensorrt/report.h"

namespace dibr::tensorrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

constexpr size_t kLongestQuote = 64;
constexpr int32_t kLongestChoice = 32;
constexpr int32_t kLongestSet = 256;
constexpr int32_t kMostFields = 64;  // of this schema or of one to come

std::string to_text(PluginFieldType type) {
  constexpr const char* kNames[] = {"float16", "float32", "float64",  "int8",  "int16", "int32", "char",
                                    "Dims",    "unknown", "bfloat16", "int64", "fp8",   "int4",  "fp4"};
  const auto code = static_cast<int32_t>(type);
  const bool known = code >= 0 && code < static_cast<int32_t>(std::size(kNames));
  return known ? kNames[code] : "type code " + std::to_string(code);
}

std::string to_text(double number) {
  char text[64];
  return std::string(text, std::to_chars(text, text + sizeof(text), number).ptr);
}

// Foreign text, cut and made printable.
std::string quote(std::string_view text) {
  std::string printable = "\"";
  for (const char letter : text.substr(0, kLongestQuote)) {
    printable += std::isprint(static_cast<unsigned char>(letter)) ? letter : '?';
  }
  return printable + (text.size() > kLongestQuote ? "...\"" : "\"");
}

// Reads the fields of one op; every failure names the op and the field.
class Reader {
 public:
  Reader(const OpDefinition& op, const nvinfer1::PluginFieldCollection* fields) : op_(op), fields_(fields) {
    if (fields == nullptr) fail("fields must be given, got NULL");
    if (fields->nbFields < 0 || fields->nbFields > kMostFields) {
      fail("there can be at most " + std::to_string(kMostFields) + " fields, got " + std::to_string(fields->nbFields));
    }
    if (fields->nbFields > 0 && fields->fields == nullptr) fail("fields must be given, got NULL");
  }

  void check_names() const {
    for (int i = 0; i < fields_->nbFields; ++i) {
      const char* name = fields_->fields[i].name;
      if (name == nullptr) fail("field " + std::to_string(i) + " has no name");
      if (!is_known(name)) fail("unknown field " + quote(std::string_view(name, strnlen(name, kLongestQuote + 1))));
      if (find(name) != &fields_->fields[i]) fail("field " + std::string(name) + " is given twice");
    }
  }

  // An engine of another schema may have other fields, so this is the first thing to ask for.
  void check_schema_version(bool required) const {
    const PluginField* stamp = find(kSchemaVersionField);
    if (stamp == nullptr && !required) return;
    if (stamp == nullptr) fail("field " + std::string(kSchemaVersionField) + " is missing");
    const double version = read_integer(*stamp);
    if (version != DIBR_SCHEMA_VERSION) {
      fail("made for op schema version " + to_text(version) + ", but this library has version " +
           std::to_string(DIBR_SCHEMA_VERSION) + "; build the engine again, or use the dibr_deploy that built it");
    }
  }

  Values read(bool required) const {
    Values values{};
    for (int i = 0; i < op_.fields.size(); ++i) {
      const Field& field = op_.fields[i];
      const PluginField* given = find(field.name);
      if (given == nullptr && required) fail("field " + std::string(field.name) + " is missing");
      values[i] = given == nullptr ? field.fallback : read(field, *given);
    }
    return values;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { dibr::tensorrt::fail(std::string(op_.name) + ": " + what); }
  [[noreturn]] void reject(const PluginField& field, const std::string& expected, const std::string& actual) const {
    fail("field " + std::string(field.name) + " must be " + expected + ", got " + actual);
  }

  bool is_known(const char* name) const {
    if (std::strcmp(name, kSchemaVersionField) == 0) return true;
    for (const Field& field : op_.fields) {
      if (std::strcmp(name, field.name) == 0) return true;
    }
    return false;
  }

  const PluginField* find(const char* name) const {
    for (int i = 0; i < fields_->nbFields; ++i) {
      const PluginField& field = fields_->fields[i];
      if (field.name != nullptr && std::strcmp(field.name, name) == 0) return &field;
    }
    return nullptr;
  }

  // The one value of a field, which need not be aligned in an engine.
  template <class T>
  T scalar(const PluginField& field, const char* expected) const {
    if (field.length != 1) reject(field, expected, std::to_string(field.length) + " values");
    if (field.data == nullptr) reject(field, expected, "no data");
    T value;
    std::memcpy(&value, field.data, sizeof(T));
    return value;
  }

  double read_integer(const PluginField& field) const {
    constexpr const char* kExpected = "one integer of 32 bits";
    if (field.type == PluginFieldType::kINT32) return scalar<int32_t>(field, kExpected);
    if (field.type != PluginFieldType::kINT64) reject(field, kExpected, to_text(field.type));
    const auto value = scalar<int64_t>(field, kExpected);
    if (value < INT32_MIN || value > INT32_MAX) reject(field, kExpected, std::to_string(value));
    return static_cast<double>(value);
  }

  double read_boolean(const PluginField& field) const {
    const double value = read_integer(field);
    if (value != 0 && value != 1) reject(field, "0 or 1", to_text(value));
    return value;
  }

  double read_real(const PluginField& field) const {
    constexpr const char* kExpected = "one float32";
    if (field.type != PluginFieldType::kFLOAT32) reject(field, kExpected, to_text(field.type));
    return scalar<float>(field, kExpected);
  }

  double read_choice(const Field& declared, const PluginField& field) const {
    std::string expected;
    for (const char* name : declared.choices)
      expected += (expected.empty() ? "\"" : " or \"") + std::string(name) + '"';
    if (field.type != PluginFieldType::kCHAR) reject(field, expected, to_text(field.type));
    if (field.length < 0 || field.length > kLongestChoice) {
      reject(field, expected, "text of length " + std::to_string(field.length));
    }
    if (field.data == nullptr && field.length > 0) reject(field, expected, "no data");
    std::string_view text(static_cast<const char*>(field.data), static_cast<size_t>(field.length));
    if (!text.empty() && text.back() == '\0') text.remove_suffix(1);
    for (int index = 0; index < declared.choices.size(); ++index) {
      if (text == declared.choices[index]) return index;
    }
    reject(field, expected, quote(text));
  }

  double read_set(const Field& declared, const PluginField& field) const {
    std::string expected = "a list with commas of";
    for (const char* name : declared.choices) expected += std::string(" ") + name;
    if (field.type != PluginFieldType::kCHAR) reject(field, expected, to_text(field.type));
    if (field.length < 0 || field.length > kLongestSet) {
      reject(field, expected, "text of length " + std::to_string(field.length));
    }
    if (field.data == nullptr && field.length > 0) reject(field, expected, "no data");
    std::string_view text(static_cast<const char*>(field.data), static_cast<size_t>(field.length));
    if (!text.empty() && text.back() == '\0') text.remove_suffix(1);
    uint32_t bits = 0;
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      uint32_t bit = 0;
      for (int i = 0; i < declared.choices.size(); ++i) {
        if (text.substr(begin, end - begin) == declared.choices[i]) bit = 1u << i;
      }
      if (bit == 0 || (bits & bit) != 0) reject(field, expected, quote(text));
      bits |= bit;
      begin = end + 1;
    }
    return bits;
  }

  double read(const Field& declared, const PluginField& field) const {
    switch (declared.kind) {
      case Field::Kind::kInteger:
        return read_integer(field);
      case Field::Kind::kBoolean:
        return read_boolean(field);
      case Field::Kind::kReal:
        return read_real(field);
      case Field::Kind::kChoice:
        return read_choice(declared, field);
      case Field::Kind::kSet:
        return read_set(declared, field);
    }
    fail("field " + std::string(declared.name) + " has an unknown kind");
  }

  const OpDefinition& op_;
  const nvinfer1::PluginFieldCollection* fields_;
};

PluginFieldType type_of(const Field& field) {
  switch (field.kind) {
    case Field::Kind::kReal:
      return PluginFieldType::kFLOAT32;
    case Field::Kind::kChoice:
    case Field::Kind::kSet:
      return PluginFieldType::kCHAR;
    default:
      return PluginFieldType::kINT32;
  }
}

// The choices of a set, in their order.
std::string set_text(const Field& field, double value) {
  std::string text;
  for (int i = 0; i < field.choices.size(); ++i) {
    if ((static_cast<uint32_t>(value) >> i & 1u) != 0)
      text += (text.empty() ? "" : ",") + std::string(field.choices[i]);
  }
  return text;
}

// Lets libdibr judge the values, in the smallest problem that has them.
void check_ranges(const OpDefinition& op, const Values& values) {
  Sizes sizes;
  for (int size = 0; size < kSizes; ++size) sizes[Size(size)] = 0;
  for (const Size side : {H, W, Ht, Wt}) sizes[side] = 1;
  for (const FieldSize& of_field : op.shape_input.sizes) {
    if (values[of_field.field] != 0) sizes[of_field.size] = static_cast<int64_t>(values[of_field.field]);
  }
  uint64_t bytes = 0;
  const dibr_status status = op.calls.workspace_size({values, sizes, DIBR_FLOAT32}, DIBR_CPU, &bytes);
  if (status != DIBR_OK) fail(dibr_last_error());
}

}  // namespace

Values read_fields(const OpDefinition& op, const nvinfer1::PluginFieldCollection* fields,
                   nvinfer1::TensorRTPhase phase) {
  const bool from_engine = phase == nvinfer1::TensorRTPhase::kRUNTIME;
  const Reader reader(op, fields);
  reader.check_schema_version(from_engine);
  reader.check_names();
  const Values values = reader.read(from_engine);
  check_ranges(op, values);
  return values;
}

template <class T>
void WrittenFields::add(const char* name, PluginFieldType type, T value) {
  memory_.push_back(std::make_unique<char[]>(sizeof(T)));
  std::memcpy(memory_.back().get(), &value, sizeof(T));
  fields_.emplace_back(name, memory_.back().get(), type, 1);
}

WrittenFields::WrittenFields(const OpDefinition& op, const Values& values) {
  add(kSchemaVersionField, PluginFieldType::kINT32, int32_t{DIBR_SCHEMA_VERSION});
  for (int i = 0; i < op.fields.size(); ++i) {
    const Field& field = op.fields[i];
    if (field.kind == Field::Kind::kChoice) {
      const char* text = field.choices[static_cast<size_t>(values[i])];
      fields_.emplace_back(field.name, text, PluginFieldType::kCHAR, static_cast<int32_t>(std::strlen(text)));
    } else if (field.kind == Field::Kind::kSet) {
      const std::string text = set_text(field, values[i]);
      memory_.push_back(std::make_unique<char[]>(text.size()));
      std::memcpy(memory_.back().get(), text.data(), text.size());
      fields_.emplace_back(field.name, memory_.back().get(), PluginFieldType::kCHAR, static_cast<int32_t>(text.size()));
    } else if (field.kind == Field::Kind::kReal) {
      add(field.name, type_of(field), static_cast<float>(values[i]));
    } else {
      add(field.name, type_of(field), static_cast<int32_t>(values[i]));
    }
  }
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

std::vector<PluginField> declare_fields(const OpDefinition& op) {
  std::vector<PluginField> fields;
  for (const Field& field : op.fields) fields.emplace_back(field.name, nullptr, type_of(field), 1);
  return fields;
}

std::string to_text(const OpDefinition& op, const Values& values) {
  std::string text;
  for (int i = 0; i < op.fields.size(); ++i) {
    const Field& field = op.fields[i];
    const std::string value = field.kind == Field::Kind::kChoice ? field.choices[static_cast<size_t>(values[i])]
                              : field.kind == Field::Kind::kSet  ? set_text(field, values[i])
                                                                 : to_text(values[i]);
    text += (text.empty() ? "" : ", ") + std::string(field.name) + "=" + value;
  }
  return std::string(op.name) + "(" + text + ")";
}

}  // namespace dibr::tensorrt
