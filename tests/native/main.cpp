// drive_c_abi GROUP: runs one group of native tests and exits with 1 where an expectation failed.
#include "harness.h"

int main(int argc, char** argv) {
  const std::string group = argc == 2 ? argv[1] : "";
  if (group == "ordinary") {
    dibr::test::test_ordinary();
  } else if (group == "degenerate") {
    dibr::test::test_degenerate();
  } else if (group == "bad_input") {
    dibr::test::test_bad_input();
  } else {
    std::fprintf(stderr, "usage: drive_c_abi ordinary|degenerate|bad_input\n");
    return 2;
  }
  std::printf("%d passed, %d failed\n", dibr::test::expectations - dibr::test::failures, dibr::test::failures);
  return dibr::test::failures > 0 ? 1 : 0;
}
