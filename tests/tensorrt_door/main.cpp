// drive_plugins LIBRARY GROUP [ITERATIONS [SEED]]: runs one group of tests on libdibr_tensorrt.so and exits with 1
// where an expectation failed. ITERATIONS and SEED are for the group hostile.
#include "tensorrt_door/plugins.h"

int main(int argc, char** argv) {
  const std::string group = argc >= 3 ? argv[2] : "";
  const int64_t iterations = argc >= 4 ? std::atoll(argv[3]) : 50000;
  const uint64_t seed = argc >= 5 ? std::strtoull(argv[4], nullptr, 10) : 1;
  if (argc < 3) {
    std::fprintf(stderr, "usage: drive_plugins LIBRARY lifecycle|shapes|formats|fields|hostile [ITERATIONS [SEED]]\n");
    return 2;
  }
  const dibr::test::Plugins plugins(argv[1]);
  if (group == "lifecycle") {
    dibr::test::test_lifecycle(plugins);
  } else if (group == "shapes") {
    dibr::test::test_shapes(plugins);
  } else if (group == "formats") {
    dibr::test::test_formats(plugins);
  } else if (group == "fields") {
    dibr::test::test_fields(plugins);
  } else if (group == "hostile") {
    dibr::test::test_hostile(plugins, iterations, seed);
  } else {
    dibr::test::expect(false, "unknown group " + group);
  }
  std::printf("%d passed, %d failed\n", dibr::test::expectations - dibr::test::failures, dibr::test::failures);
  return dibr::test::failures > 0 ? 1 : 0;
}
