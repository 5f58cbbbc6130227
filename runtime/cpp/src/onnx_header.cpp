// An ONNX file is one protobuf message, ModelProto. This walks over its fields and skips the graph.
#include "onnx_header.h"

#include <algorithm>
#include <string_view>

#include "failure.h"

namespace dibr::runtime {
namespace {

// Field numbers of the messages in onnx.proto.
constexpr std::uint64_t model_graph = 7, model_opset_import = 8, model_metadata = 14;
constexpr std::uint64_t opset_domain = 1, opset_version = 2, entry_key = 1, entry_value = 2;

enum WireType : std::uint64_t { varint_type = 0, fixed64_type = 1, bytes_type = 2, fixed32_type = 5 };

struct CutOff {};
struct NoMessage {};

struct Field {
  std::uint64_t number = 0, integer = 0;
  WireType type = varint_type;
  std::string_view bytes;
};

class Message {
 public:
  explicit Message(std::string_view rest) : rest_(rest) {}

  // The next field; false at the end.
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    field = Field{key >> 3, 0, static_cast<WireType>(key & 7), {}};
    if (field.number == 0) throw NoMessage();
    switch (key & 7) {
      case varint_type:
        field.integer = varint();
        break;
      case bytes_type:
        field.bytes = take(varint());
        break;
      case fixed64_type:
        field.bytes = take(8);
        break;
      case fixed32_type:
        field.bytes = take(4);
        break;
      default:
        throw NoMessage();
    }
    return true;
  }

 private:
  std::string_view take(std::uint64_t bytes) {
    if (bytes > rest_.size()) throw CutOff();
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= shift < 64 ? static_cast<std::uint64_t>(byte & 0x7F) << shift : 0;
      if (byte < 0x80) return value;
    }
    throw NoMessage();
  }

  std::string_view rest_;
};

std::string text(const Field& field) {
  if (field.type != bytes_type) throw NoMessage();
  return std::string(field.bytes);
}

void read_opset(std::string_view content, OnnxHeader& header) {
  Message message(content);
  std::string domain;
  std::int64_t version = 0;
  for (Field field; message.next(field);) {
    if (field.number == opset_domain) domain = text(field);
    if (field.number == opset_version) version = static_cast<std::int64_t>(field.integer);
  }
  header.opsets[domain] = version;
}

void read_metadata(std::string_view content, OnnxHeader& header) {
  Message message(content);
  std::string key, value;
  for (Field field; message.next(field);) {
    if (field.number == entry_key) key = text(field);
    if (field.number == entry_value) value = text(field);
  }
  header.metadata[key] = value;
}

}  // namespace

std::int64_t OnnxHeader::schema_version() const {
  const auto opset = opsets.find(op_domain);
  std::int64_t version = opset != opsets.end() ? opset->second : 0;
  const auto stated = metadata.find("dibr.schema_version");
  if (stated != metadata.end()) {
    const std::string& digits = stated->second;
    const bool is_number =
        !digits.empty() && digits.size() <= 18 && digits.find_first_not_of("0123456789") == std::string::npos;
    if (is_number) version = std::max<std::int64_t>(version, std::stoll(digits));
  }
  return version;
}

OnnxHeader parse_onnx_header(const Bytes& model, const std::string& what) {
  OnnxHeader header;
  bool has_graph = false;
  try {
    Message message(std::string_view(reinterpret_cast<const char*>(model.data()), model.size()));
    for (Field field; message.next(field);) {
      if (field.number == model_graph) has_graph = true;
      if (field.number == model_opset_import) read_opset(field.bytes, header);
      if (field.number == model_metadata) read_metadata(field.bytes, header);
    }
  } catch (const CutOff&) {
    fail(DIBR_RUNTIME_REFUSED, what, " is cut off: it ends after ", model.size(), " bytes");
  } catch (const NoMessage&) {
    fail(DIBR_RUNTIME_REFUSED, what, " is not an ONNX file");
  }
  if (!has_graph || header.opsets.empty()) {
    fail(DIBR_RUNTIME_REFUSED, what, " is cut off or not an ONNX file: it has no ", has_graph ? "opset" : "graph");
  }
  return header;
}

}  // namespace dibr::runtime
