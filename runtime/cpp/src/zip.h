// Zip files with stored and deflated members, read by a reader that trusts nothing in them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "files.h"

namespace dibr::runtime {

class ZipFile {
 public:
  // Reads the list of members. what: names the file in errors, for example "bundle model.zip".
  ZipFile(const std::string& path, const std::string& what);

  bool contains(const std::string& name) const { return members_.count(name) > 0; }
  // Bytes of a member once unpacked. Fails where a member is there twice, is encrypted, or claims to unpack to more
  // than an honest one could.
  std::uint64_t size(const std::string& name) const;
  // Content of a member, once its length and CRC are what the list says.
  Bytes read(const std::string& name) const;

 private:
  struct Member {
    int count = 0;  // how often the list has the name
    std::uint16_t flags = 0, method = 0;
    std::uint32_t crc = 0;
    std::uint64_t packed = 0, unpacked = 0, header = 0;
  };

  const Member& checked(const std::string& name) const;
  Bytes unpacked(const std::string& name, const Member& member, const Bytes& packed) const;

  std::string what_;
  InputFile file_;
  std::map<std::string, Member> members_;
};

// Whether the first bytes of a file are those of a zip file. False where there is no file.
bool is_zip(const std::string& path);

}  // namespace dibr::runtime
