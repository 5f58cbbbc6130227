// Sessions of the bundle that conftest.py makes: inputs offsets [batch, 1, 3] and world_to_clip [batch, 4, 4], outputs
// image, mask, face_index and depth.
#include <functional>

#include "dibr/cameras.hpp"
#include "dibr/runtime.hpp"
#include "groups.h"

namespace dibr::test {
namespace {

struct Inputs {
  std::vector<float> offsets, cameras;
  std::int64_t batch;

  explicit Inputs(std::int64_t batch) : batch(batch) {
    for (std::int64_t b = 0; b < batch; ++b) {
      const Matrix4 camera = perspective(0.9) * orbit(0.3 + static_cast<double>(b), 0.4, 3.5);
      cameras.insert(cameras.end(), camera.begin(), camera.end());
      offsets.insert(offsets.end(), {0.1F * static_cast<float>(b), 0.0F, -0.1F});
    }
  }
  std::vector<TensorView> views() const { return {tensor(offsets, {batch, 1, 3}), tensor(cameras, {batch, 4, 4})}; }
};

// All bytes of the outputs.
std::string bytes_of(const Result& result) {
  std::string bytes;
  for (const TensorView& output : result.tensors()) {
    bytes += output.name();
    bytes.append(static_cast<const char*>(output.data()), output.bytes());
  }
  return bytes;
}

void expect_refused(const Session& session, const std::string& words, const std::vector<TensorView>& inputs) {
  std::string said;
  try {
    session.run(inputs);
  } catch (const RuntimeError& error) {
    said = error.status() == DIBR_RUNTIME_INVALID_ARGUMENT ? error.what() : "";
  }
  expect(said.find(words) != std::string::npos, "refused for \"" + words + "\", got: " + said);
}

void outputs_have_names_and_shapes(const Session& session) {
  const Inputs inputs(2);
  const Result result = session.run(inputs.views());
  expect(session.provider() == "cpu" && session.inputs().size() == 2 && session.outputs().size() == 4,
         "the model has its inputs and outputs");
  expect(session.inputs()[0].axes == std::vector<std::string>({"batch", "", ""}) &&
             session.inputs()[0].shape == std::vector<std::int64_t>({-1, 1, 3}),
         "a dynamic axis has its name");
  expect(result["image"].shape() == std::vector<std::int64_t>({2, 24, 17, 3}), "the image has its shape");
  const auto face_index = result["face_index"].values<std::int32_t>();
  expect(std::any_of(face_index.begin(), face_index.end(), [](std::int32_t face) { return face >= 0; }),
         "the mesh is in the image");
  const std::vector<TensorView> by_name = {tensor(inputs.cameras, {2, 4, 4}, "world_to_clip"),
                                           tensor(inputs.offsets, {2, 1, 3}, "offsets")};
  expect(bytes_of(session.run(by_name)) == bytes_of(result), "inputs may come by name in any order");
  int thrown = 0;
  for (const auto& call : {std::function<void()>([&] { result["none"]; }),
                           std::function<void()>([&] { result["image"].values<double>(); })}) {
    try {
      call();
    } catch (const Error&) {
      ++thrown;
    }
  }
  expect(thrown == 2, "there is no output of another name or type");
}

void wrong_inputs_are_refused(const Session& session) {
  const Inputs inputs(2);
  const std::vector<double> doubles(6);
  const TensorView offsets = tensor(inputs.offsets, {2, 1, 3}), cameras = tensor(inputs.cameras, {2, 4, 4});
  expect_refused(session, "input offsets is missing", {});
  expect_refused(session, "input world_to_clip is missing", {offsets});
  expect_refused(session, "takes 2 inputs (offsets, world_to_clip), got 3", {offsets, cameras, cameras});
  expect_refused(session, "must be float32, got float64", {tensor(doubles, {2, 1, 3}), cameras});
  expect_refused(session, "must have shape [batch, 1, 3]", {tensor(inputs.offsets, {6}), cameras});
  expect_refused(session, "must have shape [batch, 1, 3]", {tensor(inputs.offsets, {2, 3, 1}), cameras});
  expect_refused(session, "must have shape [batch, 4, 4] with batch = 2, got [1, 4, 4]",
                 {offsets, TensorView(DIBR_ELEMENT_FLOAT32, inputs.cameras.data(), 64, {1, 4, 4})});
  expect_refused(session, "must have shape", {tensor(inputs.offsets, {-2, 1, 3}), cameras});
  expect_refused(session, "must have 24 bytes, got 20",
                 {TensorView(DIBR_ELEMENT_FLOAT32, inputs.offsets.data(), 20, {2, 1, 3}), cameras});
  expect_refused(session, "is too large",
                 {TensorView(DIBR_ELEMENT_FLOAT32, inputs.offsets.data(), 24, {INT64_MAX, 1, 3}), cameras});
  expect_refused(session, "has no data", {TensorView(DIBR_ELEMENT_FLOAT32, nullptr, 24, {2, 1, 3}), cameras});
  expect_refused(session, "element type 77",
                 {TensorView(static_cast<dibr_element>(77), inputs.offsets.data(), 24, {2, 1, 3}), cameras});
  expect_refused(session, "no input none", {offsets, tensor(inputs.cameras, {2, 4, 4}, "none")});
  expect_refused(session, "given twice", {offsets, tensor(inputs.offsets, {2, 1, 3}, "offsets")});
  expect_refused(session, "has no name", {tensor(inputs.offsets, {2, 1, 3}, "offsets"), cameras});
}

void threads_share_a_session(const Session& session) {
  const Inputs one(1), three(3);
  const std::string expected_one = bytes_of(session.run(one.views()));
  const std::string expected_three = bytes_of(session.run(three.views()));
  std::atomic<int> equal{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        const bool is_odd = (t + i) % 2 != 0;
        equal += bytes_of(session.run((is_odd ? three : one).views())) == (is_odd ? expected_three : expected_one);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(equal == 40, "threads that share a session get what one gets");
}

void sessions_come_and_go(const std::string& bundle, const SessionOptions& options, const std::string& expected) {
  const Inputs inputs(2);
  for (int i = 0; i < 5; ++i) {
    auto session = std::make_unique<Session>(bundle, options);
    const Result result = session->run(inputs.views());
    session.reset();
    expect(bytes_of(result) == expected, "a result outlives its session");
  }
  std::atomic<int> equal{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2; ++i) equal += bytes_of(Session(bundle, options).run(inputs.views())) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(equal == 6, "threads may open sessions of their own at the same time");
}

}  // namespace

void test_sessions(const std::string& bundle, const std::string& operators) {
  SessionOptions options;
  options.provider = "cpu";
  options.operator_library = operators;
  // ONNX Runtime's own threads synchronise by means that the thread sanitizer does not see: the callers' are enough.
  options.threads = 1;
  check_bundle(bundle);
  std::string expected;
  {
    const Session session(bundle, options);
    outputs_have_names_and_shapes(session);
    wrong_inputs_are_refused(session);
    threads_share_a_session(session);
    expected = bytes_of(session.run(Inputs(2).views()));
  }
  sessions_come_and_go(bundle, options, expected);
}

}  // namespace dibr::test
