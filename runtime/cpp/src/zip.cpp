#include "zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "failure.h"

namespace dibr::runtime {
namespace {

// Of APPNOTE.TXT, the zip file format: fixed parts of the three kinds of records, all little-endian.
constexpr std::uint32_t local_signature = 0x04034b50, central_signature = 0x02014b50, end_signature = 0x06054b50;
constexpr std::size_t local_bytes = 30, central_bytes = 46, end_bytes = 22, longest_comment = 65535;
constexpr std::uint16_t encrypted = 1, stored = 0, deflated = 8;

// As dibr_deploy.runtime.bundle has them: a zip bomb unpacks to more.
constexpr std::uint64_t most_times = 100, unchecked_bytes = 16 << 20;

std::uint16_t two(const unsigned char* data) { return static_cast<std::uint16_t>(data[0] | data[1] << 8); }
std::uint32_t four(const unsigned char* data) { return two(data) | static_cast<std::uint32_t>(two(data + 2)) << 16; }

// A stream of zlib that ends itself.
struct Inflater {
  Inflater() {
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) fail(DIBR_RUNTIME_OUT_OF_MEMORY, "zlib has not enough memory");
  }
  Inflater(const Inflater&) = delete;
  ~Inflater() { inflateEnd(&stream); }
  z_stream stream{};
};

}  // namespace

ZipFile::ZipFile(const std::string& path, const std::string& what) : what_(what), file_(path, what) {
  const std::uint64_t size = file_.size();
  const std::uint64_t tail = std::min<std::uint64_t>(size, end_bytes + longest_comment);
  const Bytes last = file_.read(size - tail, tail);
  std::size_t end = last.size();
  for (std::size_t place = last.size() >= end_bytes ? last.size() - end_bytes + 1 : 0; place-- > 0;) {
    const bool fits = four(&last[place]) == end_signature && place + end_bytes + two(&last[place + 20]) == last.size();
    if (fits) {
      end = place;
      break;
    }
  }
  if (end == last.size()) fail(DIBR_RUNTIME_REFUSED, what, " is neither a folder nor a zip file, or it is cut off");
  const unsigned char* record = &last[end];
  const std::uint16_t count = two(record + 10);
  const std::uint64_t list_size = four(record + 12), list_start = four(record + 16);
  if (count == 0xFFFF || list_size == 0xFFFFFFFF || list_start == 0xFFFFFFFF) {
    fail(DIBR_RUNTIME_REFUSED, what, " is a zip64 file, which is not read: unpack it to a folder");
  }
  if (two(record + 4) != 0 || two(record + 6) != 0 || two(record + 8) != count) {
    fail(DIBR_RUNTIME_REFUSED, what, " is one part of several: pack it again in one file");
  }
  if (list_start > size || list_size > size - list_start) {
    fail(DIBR_RUNTIME_REFUSED, what, " is damaged: its list of files lies outside of it");
  }
  const Bytes list = file_.read(list_start, list_size);
  std::size_t place = 0;
  for (int index = 0; index < count; ++index) {
    if (list.size() - place < central_bytes || four(&list[place]) != central_signature) {
      fail(DIBR_RUNTIME_REFUSED, what, " is damaged: its list of files is cut off");
    }
    const unsigned char* entry = &list[place];
    const std::size_t name_length = two(entry + 28);
    const std::size_t length = central_bytes + name_length + two(entry + 30) + two(entry + 32);
    if (list.size() - place < length) fail(DIBR_RUNTIME_REFUSED, what, " is damaged: its list of files is cut off");
    Member& member = members_[std::string(reinterpret_cast<const char*>(entry + central_bytes), name_length)];
    ++member.count;
    member.flags = two(entry + 8);
    member.method = two(entry + 10);
    member.crc = four(entry + 16);
    member.packed = four(entry + 20);
    member.unpacked = four(entry + 24);
    member.header = four(entry + 42);
    place += length;
  }
}

const ZipFile::Member& ZipFile::checked(const std::string& name) const {
  const Member& member = members_.at(name);
  if (member.count > 1) {
    fail(DIBR_RUNTIME_REFUSED, what_, " has ", name, " ", member.count, " times: pack or export it again");
  }
  if (member.flags & encrypted) {
    fail(DIBR_RUNTIME_REFUSED, what_, ": ", name, " is encrypted: pack it again without a password");
  }
  if (member.method != stored && member.method != deflated) {
    fail(DIBR_RUNTIME_REFUSED, what_, ": ", name, " is packed by method ", member.method,
         ", and only stored and deflated files are read: pack it again without compression (zip -0)");
  }
  const std::uint64_t packed = std::min(member.packed, file_.size());
  if (member.unpacked > std::max(unchecked_bytes, most_times * packed)) {
    fail(DIBR_RUNTIME_REFUSED, what_, ": ", name, " would unpack from ", packed, " to ", member.unpacked,
         " bytes, more than ", most_times, " times as many: pack it without compression (zip -0) if it is what it ",
         "should be");
  }
  return member;
}

std::uint64_t ZipFile::size(const std::string& name) const { return checked(name).unpacked; }

Bytes ZipFile::read(const std::string& name) const {
  const Member& member = checked(name);
  const auto damaged = [&](const char* why) {
    fail(DIBR_RUNTIME_REFUSED, what_, ": ", name, " cannot be read: ", why, ": copy or export the bundle again");
  };
  if (member.header > file_.size() || file_.size() - member.header < local_bytes) damaged("it lies outside of the zip");
  unsigned char header[local_bytes];
  file_.read(member.header, header, sizeof header);
  if (four(header) != local_signature || two(header + 26) != name.size()) damaged("it is not where the list says");
  const std::uint64_t start = member.header + local_bytes + two(header + 26) + two(header + 28);
  if (start > file_.size() || member.packed > file_.size() - start) damaged("it is cut off");
  const Bytes name_there = file_.read(member.header + local_bytes, name.size());
  if (!std::equal(name_there.begin(), name_there.end(), name.begin(),
                  [](unsigned char a, char b) { return a == static_cast<unsigned char>(b); })) {
    damaged("it has another name there than in the list");
  }
  Bytes content = file_.read(start, member.packed);
  if (member.method == deflated) content = unpacked(name, member, content);
  if (content.size() != member.unpacked) damaged("it has another length than the list says");
  uLong crc = crc32(0, nullptr, 0);
  for (std::size_t done = 0; done < content.size();) {
    const auto part = static_cast<uInt>(std::min<std::size_t>(content.size() - done, 1U << 30));
    crc = crc32(crc, content.data() + done, part);
    done += part;
  }
  if (crc != member.crc) damaged("its CRC is wrong");
  return content;
}

Bytes ZipFile::unpacked(const std::string& name, const Member& member, const Bytes& packed) const {
  // Both sizes have 32 bits. One byte more, which an honest member does not write.
  Bytes content(member.unpacked + 1);
  Inflater inflater;
  z_stream& stream = inflater.stream;
  stream.next_in = const_cast<unsigned char*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = content.data();
  stream.avail_out =
      static_cast<uInt>(std::min<std::uint64_t>(content.size(), std::numeric_limits<std::uint32_t>::max()));
  if (inflate(&stream, Z_FINISH) != Z_STREAM_END) {
    fail(DIBR_RUNTIME_REFUSED, what_, ": ", name,
         " cannot be read: what is packed is damaged: ", "copy or export the bundle again");
  }
  content.resize(stream.total_out);
  return content;
}

bool is_zip(const std::string& path) {
  if (!is_file(path)) return false;
  const InputFile file(path, path);
  if (file.size() < 4) return false;
  unsigned char start[4];
  file.read(0, start, sizeof start);
  return four(start) == local_signature || four(start) == end_signature;
}

}  // namespace dibr::runtime
