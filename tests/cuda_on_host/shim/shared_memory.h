// Shared memory is not zero on a device. Every block starts with it full of a pattern that no sane result survives:
// static variables are found by the tag that __shared__ puts into their symbols, dynamic memory is allocated per block.
#pragma once

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "qualifiers.h"

// The C library's: the calling thread's copy of the thread-local variable {library, offset}.
extern "C" void* __tls_get_addr(void* index);

namespace cuda_on_host {

// A NaN as double, float, half and bfloat16, -131075 as int, neither true nor false as bool (which UBSan reports).
constexpr uint32_t kPoison = 0xFFFDFFFDu;

CUDA_ON_HOST_UNSANITIZED inline void poison(void* memory, size_t bytes) {
  using Word __attribute__((may_alias)) = uint32_t;
  auto* at = static_cast<unsigned char*>(memory);
  unsigned char* const end = at + bytes;
  const auto poison_byte = [&]() CUDA_ON_HOST_UNSANITIZED { *at = reinterpret_cast<uintptr_t>(at) & 1 ? 0xFF : 0xFD; };
  for (; at < end && reinterpret_cast<uintptr_t>(at) % sizeof(Word); ++at) poison_byte();
  auto* const words = reinterpret_cast<Word*>(at);
  const size_t count = size_t(end - at) / sizeof(Word);
  for (size_t i = 0; i < count; ++i) words[i] = kPoison;
  for (at += count * sizeof(Word); at < end; ++at) poison_byte();
}

struct Span {
  void* memory;
  size_t bytes;
};

// The static __shared__ variables of one executable or shared library.
class SharedVariables {
 public:
  // Those of the library that holds `kernel`. Read once per library.
  static const SharedVariables& beside(const void* kernel) {
    static std::mutex mutex;
    static std::map<ElfW(Addr), SharedVariables> by_library;
    Library library;
    library.address = reinterpret_cast<ElfW(Addr)>(kernel);
    dl_iterate_phdr(match_library, &library);
    const std::lock_guard<std::mutex> lock(mutex);
    const auto [entry, is_new] = by_library.try_emplace(library.base);
    if (is_new) entry->second.read_symbols(library);
    return entry->second;
  }

  // Where the calling thread has them.
  std::vector<Span> spans() const {
    std::vector<Span> result;
    for (const Variable& variable : variables_) {
      unsigned long index[2] = {tls_module_, variable.value};
      void* const memory =
          variable.per_thread ? __tls_get_addr(index) : reinterpret_cast<void*>(base_ + variable.value);
      result.push_back({memory, variable.bytes});
    }
    return result;
  }

 private:
  struct Variable {
    ElfW(Addr) value;  // offset from the library's base, or within its block of thread-local storage
    size_t bytes;
    bool per_thread;
  };
  struct Library {
    ElfW(Addr) address = 0;  // looked for
    ElfW(Addr) base = 0;
    size_t tls_module = 0;
    std::string path;
  };

  static int match_library(dl_phdr_info* info, size_t, void* data) {
    Library& library = *static_cast<Library*>(data);
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const ElfW(Phdr) & segment = info->dlpi_phdr[i];
      const ElfW(Addr) start = info->dlpi_addr + segment.p_vaddr;
      if (segment.p_type != PT_LOAD || library.address < start || library.address >= start + segment.p_memsz) continue;
      library.base = info->dlpi_addr;
      library.tls_module = info->dlpi_tls_modid;
      library.path = info->dlpi_name && *info->dlpi_name ? info->dlpi_name : "/proc/self/exe";
      return 1;
    }
    return 0;
  }

  void read_symbols(const Library& library) {
    base_ = library.base;
    tls_module_ = library.tls_module;
    const int file = open(library.path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status = {};
    if (file < 0 || fstat(file, &status) != 0) fail(library, "cannot be read");
    void* const mapping = mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (mapping == MAP_FAILED) fail(library, "cannot be mapped");
    const bool found = read_symbol_table(static_cast<const char*>(mapping));
    munmap(mapping, size_t(status.st_size));
    if (!found) fail(library, "has no symbol table: build it without -s and do not strip it");
  }

  bool read_symbol_table(const char* image) {
    const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(image);
    const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(image + header->e_shoff);
    for (int i = 0; i < header->e_shnum; ++i) {
      if (sections[i].sh_type != SHT_SYMTAB) continue;
      const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(image + sections[i].sh_offset);
      const char* const names = image + sections[sections[i].sh_link].sh_offset;
      for (size_t k = 0; k < sections[i].sh_size / sizeof(ElfW(Sym)); ++k) {
        const int type = ELF64_ST_TYPE(symbols[k].st_info);
        if ((type != STT_OBJECT && type != STT_TLS) || !std::strstr(names + symbols[k].st_name, "cuda_on_host_shared"))
          continue;
        variables_.push_back({symbols[k].st_value, size_t(symbols[k].st_size), type == STT_TLS});
      }
      return true;
    }
    return false;
  }

  [[noreturn]] static void fail(const Library& library, const char* what) {
    std::fprintf(stderr, "cuda_on_host: cannot find the __shared__ variables: %s %s\n", library.path.c_str(), what);
    std::abort();
  }

  ElfW(Addr) base_ = 0;
  size_t tls_module_ = 0;
  std::vector<Variable> variables_;
};

}  // namespace cuda_on_host
