// drive_runtime renderer|readers|hostile FOLDER ITERATIONS|sessions BUNDLE OPERATORS|photos BUNDLE OPERATORS: runs one
// group of tests, and exits with 1 where an expectation failed.
#include "groups.h"

int main(int argc, char** argv) {
  const std::string group = argc > 1 ? argv[1] : "";
  if (group == "renderer" && argc == 2) {
    dibr::test::test_renderer();
  } else if (group == "readers" && argc == 2) {
    dibr::test::test_readers();
  } else if (group == "hostile" && argc == 4) {
    dibr::test::test_hostile(argv[2], std::atoi(argv[3]));
  } else if (group == "sessions" && argc == 4) {
    dibr::test::test_sessions(argv[2], argv[3]);
  } else if (group == "photos" && argc == 4) {
    dibr::test::test_photos(argv[2], argv[3]);
  } else {
    std::fprintf(stderr,
                 "usage: drive_runtime renderer|readers|hostile FOLDER ITERATIONS|sessions BUNDLE OPERATORS|photos "
                 "BUNDLE OPERATORS\n");
    return 2;
  }
  std::printf("%d passed, %d failed\n", dibr::test::expectations - dibr::test::failures, dibr::test::failures);
  return dibr::test::failures > 0 ? 1 : 0;
}
