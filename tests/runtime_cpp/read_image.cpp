// read_image SIZE FILE...: for each file the bytes of dibr_image_read_square into FILE.raw, or its error into
// FILE.error.
#include <cstdio>
#include <fstream>
#include <string>

#include "dibr/runtime.hpp"

int main(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) {
    const std::string path = argv[i];
    try {
      const auto pixels = dibr::read_square(path, std::stoll(argv[1]));
      std::ofstream(path + ".raw", std::ios::binary)
          .write(reinterpret_cast<const char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
    } catch (const dibr::RuntimeError& error) {
      std::ofstream(path + ".error") << error.status() << " " << error.what();
    }
  }
  return 0;
}
