// The counters, and the hooks that the compiler calls at every load and store of the kernels: those of
// -fsanitize=kernel-address, whose checks are functions that the program itself supplies.
#include "counters.h"

#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace counting {
namespace {

constexpr uintptr_t kSector = 32;  // bytes: what a GPU moves at least

struct KernelCount {
  uint64_t launches = 0;
  uint64_t operations = 0, special = 0, atomics = 0;
  uint64_t loaded = 0, stored = 0;                 // bytes that threads asked for
  uint64_t read_sectors = 0, written_sectors = 0;  // distinct in one launch
};

// An array on the "device". A sector's mark is the launch that touched it last.
struct Array {
  uintptr_t begin, end;
  std::vector<uint32_t> read, written;

  Array(uintptr_t first, size_t bytes) : begin(first), end(first + bytes) {
    const size_t sectors = (end - 1) / kSector - begin / kSector + 1;
    read.resize(sectors);
    written.resize(sectors);
  }
};

std::vector<Array> arrays;
std::map<std::string, KernelCount> counts;
KernelCount* current = nullptr;
uint32_t launch = 0;

Array* array_at(uintptr_t address) {
  static size_t latest = 0;
  if (latest < arrays.size() && arrays[latest].begin <= address && address < arrays[latest].end) return &arrays[latest];
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (arrays[i].begin <= address && address < arrays[i].end) {
      latest = i;
      return &arrays[i];
    }
  }
  return nullptr;
}

// How many sectors of the access this launch touches for the first time.
uint64_t mark(const Array& array, std::vector<uint32_t>& marks, uintptr_t address, size_t bytes) {
  uint64_t fresh = 0;
  for (uintptr_t sector = address / kSector; sector <= (address + bytes - 1) / kSector; ++sector) {
    uint32_t& mark = marks[sector - array.begin / kSector];
    fresh += mark != launch;
    mark = launch;
  }
  return fresh;
}

void access(uintptr_t address, size_t bytes, bool writes) {
  if (current == nullptr) return;
  Array* const array = array_at(address);
  if (array == nullptr) return;
  (writes ? current->stored : current->loaded) += bytes;
  (writes ? current->written_sectors : current->read_sectors) +=
      mark(*array, writes ? array->written : array->read, address, bytes);
}

}  // namespace

void begin_launch(const char* kernel) {
  current = &counts[kernel];
  ++launch;
  operations = special = 0;
}

void end_launch(uint64_t atomics) {
  ++current->launches;
  current->atomics += atomics;
  current->operations += operations;
  current->special += special;
  current = nullptr;
}

void atomic(const void* address, uint64_t bytes) {
  access(reinterpret_cast<uintptr_t>(address), bytes, false);
  access(reinterpret_cast<uintptr_t>(address), bytes, true);
}

}  // namespace counting

extern "C" {

__attribute__((visibility("default"))) void counting_reset() {
  counting::arrays.clear();
  counting::counts.clear();
}

__attribute__((visibility("default"))) void counting_track(const void* memory, uint64_t bytes) {
  if (bytes > 0) counting::arrays.emplace_back(reinterpret_cast<uintptr_t>(memory), bytes);
}

// One line a kernel: name, tab, numbers.
__attribute__((visibility("default"))) const char* counting_report() {
  static std::string text;
  text.clear();
  for (const auto& [kernel, c] : counting::counts) {
    text += kernel + "\t";
    for (const uint64_t number : {c.launches, c.operations, c.special, c.atomics, c.loaded, c.stored,
                                  c.read_sectors * 32, c.written_sectors * 32}) {
      text += std::to_string(number) + " ";
    }
    text += "\n";
  }
  return text.c_str();
}

#define COUNTING_HOOK(bytes)                                                                        \
  void __asan_load##bytes##_noabort(uintptr_t address) { counting::access(address, bytes, false); } \
  void __asan_store##bytes##_noabort(uintptr_t address) { counting::access(address, bytes, true); }
COUNTING_HOOK(1)
COUNTING_HOOK(2)
COUNTING_HOOK(4)
COUNTING_HOOK(8)
COUNTING_HOOK(16)
void __asan_loadN_noabort(uintptr_t address, size_t bytes) { counting::access(address, bytes, false); }
void __asan_storeN_noabort(uintptr_t address, size_t bytes) { counting::access(address, bytes, true); }
void __asan_handle_no_return() {}
}
