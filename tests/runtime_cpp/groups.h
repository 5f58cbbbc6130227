// The groups of tests of drive_runtime. test_runtime_cpp's Python files make the files that some of them read.
#pragma once

#include <string>

#include "harness.h"

namespace dibr::test {

// The C++ wrapper over libdibr, its thread pool and cameras.
void test_renderer();
// SHA-256, files written whole or not at all, arguments of the C ABI.
void test_readers();
// Damages every file of the folder at random, and has it read as what it is: it is read or refused in one sentence.
void test_hostile(const std::string& folder, int iterations);
// Opens the bundle in many ways, from many threads. operators: libdibr_onnxruntime.so.
void test_sessions(const std::string& bundle, const std::string& operators);
// The same of a bundle that takes photos and has its renderer beside it.
void test_photos(const std::string& bundle, const std::string& operators);

}  // namespace dibr::test
