#include "manifest.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "failure.h"

namespace dibr::runtime {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t format_version = 1;
constexpr std::int64_t most_size = (std::int64_t{1} << 48) - 1, most_version = (std::int64_t{1} << 31) - 1;

// What is wrong with a value; parse_manifest adds where it is.
struct Problem {
  std::string place, sentence;
};

[[noreturn]] void refuse(const std::string& place, const std::string& sentence) { throw Problem{place, sentence}; }

// A key of the file, which may be anything, as part of a sentence.
std::string printable(const std::string& key) {
  constexpr std::size_t most = 60;
  std::string text;
  for (const char c : key.substr(0, most)) text += std::isprint(static_cast<unsigned char>(c)) ? c : '?';
  return text + (key.size() > most ? "..." : "");
}

// A JSON object whose members are all known, and are asked for by name.
class Object {
 public:
  Object(const Json& value, std::string place, std::initializer_list<const char*> known)
      : value_(value), place_(std::move(place)) {
    if (!value.is_object()) refuse(place_, "it must be an object");
    for (const auto& [key, member] : value.items()) {
      const bool is_known = std::any_of(known.begin(), known.end(), [&](const char* name) { return key == name; });
      if (!is_known) refuse(at(printable(key)), "this library knows no such field: a newer one may");
    }
  }

  bool has(const char* name) const { return value_.contains(name); }
  std::string at(const std::string& name) const { return place_.empty() ? name : place_ + "." + name; }

  const Json& member(const char* name) const {
    const auto found = value_.find(name);
    if (found == value_.end()) refuse(at(name), "it is missing");
    return *found;
  }

 private:
  const Json& value_;
  std::string place_;
};

std::int64_t integer(const Json& value, const std::string& place, std::int64_t least, std::int64_t most) {
  // An unsigned number above 2^63 is not representable: ask for it first.
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most)) &&
                    value.get<std::int64_t>() >= least && value.get<std::int64_t>() <= most;
  if (!fits) refuse(place, sentence("it must be an integer from ", least, " to ", most));
  return value.get<std::int64_t>();
}

bool boolean(const Json& value, const std::string& place) {
  if (!value.is_boolean()) refuse(place, "it must be true or false");
  return value.get<bool>();
}

const std::string& text(const Json& value, const std::string& place) {
  if (!value.is_string()) refuse(place, "it must be a string");
  return value.get_ref<const std::string&>();
}

std::string one_of(const Json& value, const std::string& place, std::initializer_list<const char*> allowed) {
  const std::string& word = text(value, place);
  std::string listed;
  for (const char* name : allowed) {
    if (word == name) return word;
    listed += sentence(listed.empty() ? "" : ", ", name);
  }
  refuse(place, "it must be one of " + listed);
}

// 1 to 256 characters; UTF-8, which nlohmann::json has checked, counts by its first bytes.
std::string name(const Json& value, const std::string& place) {
  const std::string& word = text(value, place);
  const auto characters =
      std::count_if(word.begin(), word.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  if (characters < 1 || characters > 256) refuse(place, "it must have 1 to 256 characters");
  // A C string of the interface ends at the first 0.
  if (word.find('\0') != std::string::npos) refuse(place, "it must not contain a zero");
  return word;
}

bool is_file_name(const std::string& word) {
  const auto allowed = [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) || c == '.' || c == '_' || c == '-');
  };
  return !word.empty() && word.size() <= 128 && std::isalnum(static_cast<unsigned char>(word[0])) &&
         std::all_of(word.begin(), word.end(), allowed);
}

std::string file_name(const Json& value, const std::string& place) {
  const std::string& word = text(value, place);
  if (!is_file_name(word)) refuse(place, "it must be the name of a file, of letters, digits, '.', '_' and '-'");
  return word;
}

std::string digest(const Json& value, const std::string& place) {
  const std::string& word = text(value, place);
  if (word.size() != 64 || word.find_first_not_of("0123456789abcdef") != std::string::npos) {
    refuse(place, "it must be a SHA-256 of 64 hexadecimal digits");
  }
  return word;
}

// Numbers with dots between: each has from 1 to as many digits as its limit; the last limit is for all that follow.
bool is_dotted(const std::string& word, std::size_t first_digits, std::size_t other_digits, std::size_t least_parts,
               std::size_t most_parts) {
  std::size_t parts = 0, digits = 0;
  for (std::size_t place = 0; place <= word.size(); ++place) {
    if (place == word.size() || word[place] == '.') {
      if (digits < 1 || digits > (parts == 0 ? first_digits : other_digits)) return false;
      ++parts;
      digits = 0;
    } else if (word[place] >= '0' && word[place] <= '9') {
      ++digits;
    } else {
      return false;
    }
  }
  return parts >= least_parts && parts <= most_parts;
}

// Calls each(element, place) for every element.
template <class Each>
void for_each(const Json& value, const std::string& place, std::size_t most, const Each& each) {
  if (!value.is_array() || value.size() > most) {
    refuse(place, most > 8 ? "it must be a list" : sentence("it must be a list of at most ", most, " elements"));
  }
  std::size_t index = 0;
  for (const Json& element : value) each(element, place + "." + std::to_string(index++));
}

std::vector<std::int64_t> shape(const Json& value, const std::string& place) {
  std::vector<std::int64_t> sizes;
  for_each(value, place, 8,
           [&](const Json& size, const std::string& at) { sizes.push_back(integer(size, at, 0, most_size)); });
  return sizes;
}

FileEntry file_entry(const Json& value, const std::string& place) {
  const Object object(value, place, {"sha256", "bytes"});
  return {digest(object.member("sha256"), object.at("sha256")),
          static_cast<std::uint64_t>(integer(object.member("bytes"), object.at("bytes"), 0, most_size))};
}

TensorSpec tensor(const Json& value, const std::string& place) {
  const Object object(value, place, {"name", "dtype", "shape", "meaning"});
  TensorSpec spec;
  spec.name = name(object.member("name"), object.at("name"));
  spec.type = element_named(text(object.member("dtype"), object.at("dtype")));
  if (spec.type == nullptr) refuse(object.at("dtype"), "it must be the name of a type of numbers");
  for_each(object.member("shape"), object.at("shape"), 8, [&](const Json& size, const std::string& at) {
    const bool has_name = size.is_string();
    spec.axes.push_back(has_name ? name(size, at) : "");
    spec.shape.push_back(has_name ? -1 : integer(size, at, 0, most_size));
  });
  if (object.has("meaning")) spec.meaning = text(object.member("meaning"), object.at("meaning"));
  return spec;
}

Profile profile(const Json& value, const std::string& place) {
  const Object object(value, place, {"min", "opt", "max"});
  Profile ranges{shape(object.member("min"), object.at("min")), shape(object.member("opt"), object.at("opt")),
                 shape(object.member("max"), object.at("max"))};
  bool ordered = ranges.min.size() == ranges.opt.size() && ranges.opt.size() == ranges.max.size();
  for (std::size_t axis = 0; ordered && axis < ranges.min.size(); ++axis) {
    ordered = ranges.min[axis] <= ranges.opt[axis] && ranges.opt[axis] <= ranges.max[axis];
  }
  if (!ordered) refuse(place, "min <= opt <= max does not hold");
  return ranges;
}

Engine engine(const Json& value, const std::string& place) {
  const Object object(value, place,
                      {"file", "flavour", "version", "compute_capability", "version_compatible", "hardware_compatible",
                       "plugin_sha256", "carries_plugin", "profiles"});
  Engine entry;
  entry.file = file_name(object.member("file"), object.at("file"));
  entry.flavour = one_of(object.member("flavour"), object.at("flavour"), {"tensorrt", "tensorrt_rtx"});
  entry.version = text(object.member("version"), object.at("version"));
  if (!is_dotted(entry.version, 4, 6, 2, 4)) refuse(object.at("version"), "it must be a version, like 10.16.1.11");
  for_each(object.member("compute_capability"), object.at("compute_capability"), 32,
           [&](const Json& capability, const std::string& at) {
             const std::string& word = text(capability, at);
             if (!is_dotted(word, 2, 1, 2, 2)) refuse(at, "it must be a compute capability, like 8.9");
             entry.compute_capability.push_back(word);
           });
  const auto flag = [&](const char* field) {
    return object.has(field) && boolean(object.member(field), object.at(field));
  };
  entry.version_compatible = flag("version_compatible");
  entry.carries_plugin = flag("carries_plugin");
  if (object.has("hardware_compatible")) {
    entry.hardware_compatible = one_of(object.member("hardware_compatible"), object.at("hardware_compatible"),
                                       {"none", "ampere_plus", "same_compute_capability"});
  }
  entry.plugin_sha256 = digest(object.member("plugin_sha256"), object.at("plugin_sha256"));
  if (object.has("profiles")) {
    for_each(object.member("profiles"), object.at("profiles"), largest_manifest,
             [&](const Json& by_name, const std::string& at) {
               if (!by_name.is_object()) refuse(at, "it must be an object");
               auto& ranges = entry.profiles.emplace_back();
               for (const auto& [key, member] : by_name.items()) {
                 ranges[key] = profile(member, at + "." + printable(key));
               }
             });
  }
  return entry;
}

Manifest manifest(const Json& value) {
  const Object object(value, "",
                      {"format_version", "schema_version", "opset", "onnxruntime_api", "producer", "model", "inputs",
                       "outputs", "files", "engines", "sample", "preprocess", "renderer"});
  if (object.has("format_version")) {
    integer(object.member("format_version"), "format_version", format_version, format_version);
  }
  Manifest result;
  const auto version = [&](const char* field) { return integer(object.member(field), field, 1, most_version); };
  result.schema_version = version("schema_version");
  result.opset = version("opset");
  result.onnxruntime_api = version("onnxruntime_api");
  result.producer = text(object.member("producer"), "producer");
  if (object.has("model")) result.model = file_name(object.member("model"), "model");
  const auto tensors = [&](const char* field, std::vector<TensorSpec>& specs) {
    for_each(object.member(field), field, largest_manifest,
             [&](const Json& element, const std::string& at) { specs.push_back(tensor(element, at)); });
  };
  tensors("inputs", result.inputs);
  tensors("outputs", result.outputs);
  const Json& files = object.member("files");
  if (!files.is_object()) refuse("files", "it must be an object");
  for (const auto& [key, member] : files.items()) {
    const std::string place = "files." + printable(key);
    if (!is_file_name(key)) refuse(place, "it must be the name of a file, of letters, digits, '.', '_' and '-'");
    result.files[key] = file_entry(member, place);
  }
  if (object.has("engines")) {
    for_each(object.member("engines"), "engines", largest_manifest,
             [&](const Json& element, const std::string& at) { result.engines.push_back(engine(element, at)); });
  }
  const auto optional_file = [&](const char* field) -> std::optional<std::string> {
    if (!object.has(field) || object.member(field).is_null()) return std::nullopt;
    return file_name(object.member(field), field);
  };
  result.sample = optional_file("sample");
  result.preprocess = optional_file("preprocess");
  result.renderer = optional_file("renderer");
  const auto expect_listed = [&](const std::string& file) {
    if (result.files.count(file) == 0) refuse("", "files does not list " + file);
  };
  expect_listed(result.model);
  for (const Engine& entry : result.engines) expect_listed(entry.file);
  for (const auto& file : {result.sample, result.preprocess, result.renderer}) {
    if (file) expect_listed(*file);
  }
  if (result.files.count(manifest_file) > 0) refuse("", sentence("files lists ", manifest_file, " itself"));
  return result;
}

// The version that a manifest of another format states, although nothing else of it may be as this library knows it.
void refuse_newer_format(const Json& value) {
  if (!value.is_object() || !value.contains("format_version")) return;
  const Json& stated = value["format_version"];
  if (stated.is_number_unsigned() && stated.get<std::uint64_t>() > format_version) {
    refuse("", sentence("it has format version ", stated.get<std::uint64_t>(), ", but this library reads version ",
                        format_version, ": update it, or export the model again with a dibr_deploy of its version"));
  }
}

}  // namespace

Manifest parse_manifest(const Bytes& content, const std::string& what) {
  if (content.size() > largest_manifest) {
    fail(DIBR_RUNTIME_REFUSED, what, ": ", manifest_file, " has more than ", largest_manifest, " bytes");
  }
  try {
    const Json value = Json::parse(content);
    refuse_newer_format(value);
    return manifest(value);
  } catch (const Problem& problem) {
    fail(DIBR_RUNTIME_REFUSED, what, ": ", manifest_file, " is not valid: ", problem.place,
         problem.place.empty() ? "" : ": ", problem.sentence);
  } catch (const Json::exception& error) {
    fail(DIBR_RUNTIME_REFUSED, what, ": ", manifest_file, " is not valid: ", one_line(error.what()));
  }
}

}  // namespace dibr::runtime
