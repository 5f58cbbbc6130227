// drive_c_abi GROUP: runs one group of native tests and exits with 1 where an expectation failed; drive_c_abi digests
// prints what the outputs are, to compare with those of another machine or instruction set.
#include <cstdlib>

#include "harness.h"

// Whether the machine has the instruction set that the environment names.
static bool machine_has_level() {
  dibr_interpolate_params params{};
  uint64_t bytes = 0;
  params.height = params.width = 1;
  return dibr_interpolate_workspace_size(&params, DIBR_CPU, &bytes) != DIBR_UNSUPPORTED;
}

int main(int argc, char** argv) {
  const std::string group = argc == 2 ? argv[1] : "";
  if (std::getenv("DIBR_CPU_LEVEL") != nullptr && !machine_has_level()) return 77;
  if (group == "ordinary") {
    dibr::test::test_ordinary();
  } else if (group == "degenerate") {
    dibr::test::test_degenerate();
  } else if (group == "bad_input") {
    dibr::test::test_bad_input();
  } else if (group == "digests") {
    dibr::test::print_digests();
    return dibr::test::failures > 0 ? 1 : 0;
  } else {
    std::fprintf(stderr, "usage: drive_c_abi ordinary|degenerate|bad_input|digests\n");
    return 2;
  }
  std::printf("%d passed, %d failed\n", dibr::test::expectations - dibr::test::failures, dibr::test::failures);
  return dibr::test::failures > 0 ? 1 : 0;
}
