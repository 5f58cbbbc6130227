#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <limits>
#include <set>
#include <thread>

#include "bundle.h"
#include "dibr/runtime.hpp"
#include "engine_checks.h"
#include "failure.h"
#include "files.h"
#include "groups.h"
#include "images.h"
#include "onnxruntime_library.h"

namespace dibr::test {
namespace {

// A folder that goes away, with the files in it.
class Folder {
 public:
  Folder() { expect(mkdtemp(path_) != nullptr, "a temporary folder can be made"); }
  ~Folder() {
    for (const std::string& name : names()) unlink((path() + "/" + name).c_str());
    rmdir(path_);
  }
  std::string path() const { return path_; }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const std::string& name : runtime::list_folder(path_)) {
      if (name != "." && name != "..") result.push_back(name);
    }
    return result;
  }

 private:
  char path_[32] = "/tmp/dibr_runtime_XXXXXX";
};

void expect_refused(dibr_runtime_status expected, const std::string& words, dibr_runtime_status status) {
  const std::string said = dibr_runtime_last_error();
  expect(status == expected && said.find(words) != std::string::npos,
         "refused for " + words + ", got status " + std::to_string(status) + ": " + said);
}

void sha256_of_known_texts() {
  // FIPS 180-2, appendix B, and of no bytes.
  const unsigned char abc[] = {'a', 'b', 'c'};
  expect(runtime::sha256(abc, 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
         "SHA-256 of abc");
  expect(runtime::sha256(abc, 0) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
         "SHA-256 of nothing");
}

void files_are_written_whole() {
  const Folder folder;
  const std::string path = folder.path() + "/file";
  runtime::write_atomically(path, {1, 2, 3}, "file");
  runtime::write_atomically(path, {4, 5}, "file");
  expect(runtime::InputFile(path, "file").read_all() == runtime::Bytes{4, 5}, "a file is replaced");
  expect(folder.names() == std::vector<std::string>{"file"}, "nothing else is left");
  const mode_t mask = umask(0);
  umask(mask);
  struct stat information{};
  stat(path.c_str(), &information);
  expect((information.st_mode & 0777) == (0666 & ~mask), "a file has the mode that the user's files have");
  const std::vector<float> image(12, 0.5F);
  expect_refused(DIBR_RUNTIME_FAILED, "cannot be written",
                 dibr_image_write_png((folder.path() + "/none/x.png").c_str(), image.data(), 2, 2, 3));
}

void images_survive() {
  const Folder folder;
  const std::string path = folder.path() + "/image.png";
  const std::vector<float> image = {0.0F, 0.5F, 1.0F, -3.0F, NAN, 7.0F, 0.25F, 0.75F, 1e-9F, 0.1F, INFINITY, -INFINITY};
  write_png(path, image, 2, 2);
  const std::vector<std::uint8_t> expected = {0, 128, 255, 0, 0, 255, 64, 191, 0, 26, 255, 0};
  expect(read_square(path, 2) == expected, "an image comes back as it was written, clamped");
  const std::vector<float> grey = {0.0F, 1.0F};
  write_png(path, grey, 1, 2, 1);
  expect(read_square(path, 2) == std::vector<std::uint8_t>({0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255}),
         "a grey image of one row is centred, upper half first");
}

void arguments_are_checked() {
  constexpr dibr_runtime_status invalid = DIBR_RUNTIME_INVALID_ARGUMENT;
  const std::vector<float> image(12);
  std::uint8_t pixel[3];
  expect_refused(invalid, "path is NULL", dibr_image_read_square(nullptr, 1, pixel));
  expect_refused(invalid, "path is empty", dibr_image_read_square("", 1, pixel));
  expect_refused(invalid, "pixels is NULL", dibr_image_read_square("x", 1, nullptr));
  expect_refused(invalid, "size must be", dibr_image_read_square("x", 0, pixel));
  expect_refused(invalid, "size must be", dibr_image_read_square("x", INT64_MAX, pixel));
  expect_refused(DIBR_RUNTIME_NOT_FOUND, "does not exist", dibr_image_read_square("/nowhere/x.png", 1, pixel));
  expect_refused(DIBR_RUNTIME_NOT_FOUND, "is no file", dibr_image_read_square("/tmp", 1, pixel));
  expect_refused(invalid, "channels", dibr_image_write_png("x", image.data(), 2, 2, 4));
  expect_refused(invalid, "rows and columns", dibr_image_write_png("x", image.data(), 0, 2, 3));
  expect_refused(invalid, "rows and columns", dibr_image_write_png("x", image.data(), INT64_MAX, 2, 3));
  expect_refused(invalid, "image is NULL", dibr_image_write_png("x", nullptr, 2, 2, 3));

  dibr_textured_mesh mesh{};
  const float vertices[9] = {}, uvs[2] = {}, texture[3] = {}, not_finite[9] = {NAN};
  const std::int64_t faces[3] = {0, 1, 2}, uv_faces[3] = {0, 0, 1};
  expect_refused(invalid, "mesh is NULL", dibr_mesh_write_glb("x", nullptr));
  expect_refused(invalid, "vertex_count", dibr_mesh_write_glb("x", &mesh));
  mesh.vertex_count = 3;
  mesh.face_count = mesh.uv_count = mesh.texture_height = mesh.texture_width = 1;
  expect_refused(invalid, "must not be NULL", dibr_mesh_write_glb("x", &mesh));
  mesh.vertices = vertices;
  mesh.faces = faces;
  mesh.uvs = uvs;
  mesh.uv_faces = uv_faces;
  mesh.texture = texture;
  expect_refused(invalid, "uv_faces must lie in 0 to 0, got 1 in face 0", dibr_mesh_write_glb("x", &mesh));
  mesh.uv_count = 2;
  mesh.vertices = not_finite;
  expect_refused(invalid, "must be finite", dibr_mesh_write_glb("x", &mesh));
  mesh.face_count = INT64_MAX;
  expect_refused(invalid, "face_count", dibr_mesh_write_glb("x", &mesh));

  dibr_session* session = nullptr;
  dibr_session_options options{};
  expect_refused(invalid, "session is NULL", dibr_session_open("x", nullptr, nullptr));
  expect_refused(invalid, "struct_size", dibr_session_open("x", &options, &session));
  options.struct_size = offsetof(dibr_session_options, instances);
  expect_refused(invalid, "struct_size must be at least", dibr_session_open("x", &options, &session));
  struct {
    dibr_session_options known;
    void* field;
  } later{};  // of a header with one more field
  later.known.struct_size = sizeof later;
  later.known.provider = "gpu";
  expect_refused(invalid, "auto, cpu, cuda or tensorrt, got gpu", dibr_session_open("x", &later.known, &session));
  options.struct_size = sizeof options;
  options.provider = "gpu";
  expect_refused(invalid, "auto, cpu, cuda or tensorrt, got gpu", dibr_session_open("x", &options, &session));
  options.provider = nullptr;
  options.threads = -1;
  expect_refused(invalid, "threads", dibr_session_open("x", &options, &session));
  options.threads = 0;
  expect_refused(DIBR_RUNTIME_NOT_FOUND, "model /nowhere does not exist",
                 dibr_session_open("/nowhere", &options, &session));
  expect(session == nullptr, "what failed to open leaves the pointer alone");
  dibr_session_close(nullptr);
  dibr_result_free(nullptr);
  dibr_tensor_info info{};
  expect_refused(invalid, "session is NULL", dibr_session_input(nullptr, 0, &info));
  expect(dibr_session_input_count(nullptr) == 0 && dibr_result_count(nullptr) == 0, "nothing has no inputs or outputs");
  expect(dibr_element_size(static_cast<dibr_element>(99)) == 0 &&
             dibr_element_name(static_cast<dibr_element>(0)) == std::string(),
         "what is no element type has no size and no name");
  expect(dibr_element_size(DIBR_ELEMENT_FLOAT16) == 2 && dibr_element_name(DIBR_ELEMENT_BOOL) == std::string("bool"),
         "element types have sizes and names");
}

void errors_are_the_threads_own() {
  std::uint8_t pixel[3];
  dibr_image_read_square("", 1, pixel);
  std::string others;
  std::thread([&] { others = dibr_runtime_last_error(); }).join();
  expect(others.empty() && std::string(dibr_runtime_last_error()) == "path is empty", "an error is its thread's alone");
}

void versions_are_compared() {
  expect(runtime::is_older("1.16.3", 17) && !runtime::is_older("1.17.0", 17) && !runtime::is_older("1.32.0", 17) &&
             !runtime::is_older("2.0.0", 17) && runtime::is_older("0.99.0", 17) && !runtime::is_older("new", 17),
         "versions of ONNX Runtime are compared as numbers");
}

// A folder bundle whose model has so many bytes.
void write_folder_bundle(const std::string& folder, std::size_t bytes) {
  const std::string tensor = R"({"name": "x", "dtype": "float32", "shape": [1]})";
  const runtime::Bytes model(bytes);
  const std::string manifest =
      R"({"schema_version": 1, "opset": 18, "onnxruntime_api": 17, "producer": "a test", "inputs": [)" + tensor +
      R"(], "outputs": [)" + tensor + R"(], "files": {"model.onnx": {"sha256": ")" +
      runtime::sha256(model.data(), bytes) + R"(", "bytes": )" + std::to_string(bytes) + "}}}";
  runtime::write_atomically(folder + "/model.onnx", model, "model");
  runtime::write_atomically(folder + "/manifest.json", runtime::Bytes(manifest.begin(), manifest.end()), "manifest");
}

// Exchanged once while it is opened, sooner or later: were it put back at once, nobody could tell it from a damaged
// one.
void a_bundle_that_is_replaced_is_the_old_or_the_new_one() {
  constexpr int openings = 1000;
  const Folder one, other;
  write_folder_bundle(one.path(), 1000);
  write_folder_bundle(other.path(), 2000);
  std::atomic<int> opening{0}, exchanged{0};
  std::thread exchanging([&] {
    for (int round = 1; round <= openings; ++round) {
      while (opening < round) std::this_thread::yield();
      for (std::atomic<int> wait{round * 37 % 5000}; wait > 0; --wait) {
      }
      renameat2(AT_FDCWD, one.path().c_str(), AT_FDCWD, other.path().c_str(), RENAME_EXCHANGE);
      exchanged = round;
    }
  });
  std::string said;
  std::set<std::uint64_t> seen;
  for (int round = 1; round <= openings; ++round) {
    opening = round;
    try {
      seen.insert(runtime::Bundle(one.path()).manifest().files.at("model.onnx").bytes);
    } catch (const runtime::Failure& failure) {
      said = failure.sentence;
    }
    while (exchanged < round) std::this_thread::yield();
  }
  exchanging.join();
  expect(said.empty(), "a bundle that is replaced is refused: " + said);
  expect(seen == std::set<std::uint64_t>{1000, 2000}, "both are seen");
}

void engines_are_chosen_by_their_manifest() {
  runtime::Engine engine;
  engine.version = "10.16.1.11";
  engine.compute_capability = {"8.9", "9.0"};
  const auto said = [](const std::function<void()>& call) -> std::string {
    try {
      call();
    } catch (const runtime::Failure& failure) {
      return failure.sentence;
    }
    return "";
  };
  expect(runtime::loads("10.16.1.11", engine) && !runtime::loads("10.16.1.12", engine) &&
             !runtime::loads("10.16.2", engine) && !runtime::loads("", engine),
         "an engine is loaded by the very version that built it");
  engine.version_compatible = true;
  expect(runtime::loads("10.17.0.1", engine) && !runtime::loads("10.15.9.9", engine) &&
             !runtime::loads("11.0.0.1", engine),
         "a version-compatible one by later ones of its major");
  expect(said([&] { runtime::check_tensorrt_version("it", engine, "10.2.0.1", "X"); }) ==
             "it needs TensorRT 10.16.1.11 or a later 10.x, but 10.2.0.1 is installed: install that version, or build "
             "the engine again with X",
         "an older TensorRT is refused");
  expect(said([&] { runtime::check_device("it", engine, {9, 0}, "X"); }).empty(), "a device it was built for is fine");
  expect(said([&] { runtime::check_device("it", engine, {7, 5}, "X"); }) ==
             "it was built for devices of compute capability 8.9, 9.0, and this one has 7.5: build the engine again "
             "here with X",
         "another device is refused");
  engine.hardware_compatible = "ampere_plus";
  expect(said([&] { runtime::check_device("it", engine, {12, 0}, "X"); }).empty() &&
             !said([&] { runtime::check_device("it", engine, {7, 5}, "X"); }).empty(),
         "a hardware-compatible engine runs from Ampere on");

  const std::vector<std::map<std::string, runtime::Profile>> profiles = {{{"x", {{1, 3}, {2, 3}, {4, 3}}}},
                                                                         {{"x", {{5, 3}, {6, 3}, {9, 3}}}}};
  expect(runtime::choose_profile(profiles, {{"x", {4, 3}}}) == 0 &&
             runtime::choose_profile(profiles, {{"x", {5, 3}}}) == 1 && runtime::choose_profile({}, {{"x", {77}}}) == 0,
         "the first profile that covers the sizes is chosen");
  expect(said([&] {
           runtime::choose_profile(profiles, {{"x", {10, 3}}});
         }).find("input x has 10 in axis 0, but the engine was built for 1 to 4 or 5 to 9") == 0,
         "sizes that no profile covers are refused");
}

}  // namespace

void test_readers() {
  sha256_of_known_texts();
  files_are_written_whole();
  images_survive();
  arguments_are_checked();
  errors_are_the_threads_own();
  versions_are_compared();
  a_bundle_that_is_replaced_is_the_old_or_the_new_one();
  engines_are_chosen_by_their_manifest();
}

}  // namespace dibr::test
