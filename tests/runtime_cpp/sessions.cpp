// Sessions of the bundles that conftest.py makes. The plain one: inputs offsets [batch, 1, 3] and world_to_clip
// [batch, 4, 4], outputs image, mask, face_index and depth. The one of photos: as `dibr export --checkpoint` packs it.
#include <cmath>
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

// What such a bundle has not is absent; NULL is refused before, whatever the bundle has.
void parts_are_absent(const Session& session, const std::string& bundle, const std::string& operators) {
  expect(!session.can_preprocess() && !session.has_renderer(), "the bundle has neither of its own");
  dibr_session_options options{};
  options.struct_size = sizeof options;
  options.provider = "cpu";
  options.operator_library = operators.c_str();
  dibr_session *opened = nullptr, *renderer = nullptr;
  dibr_result* result = nullptr;
  const std::uint8_t pixel[3] = {};
  expect(dibr_session_open(bundle.c_str(), &options, &opened) == DIBR_RUNTIME_OK, "the bundle opens");
  const auto said = [](dibr_runtime_status status, dibr_runtime_status expected, const std::string& words) {
    const std::string sentence = dibr_runtime_last_error();
    expect(status == expected && sentence.find(words) != std::string::npos,
           "refused for \"" + words + "\", got " + std::to_string(status) + ": " + sentence);
  };
  const dibr_runtime_status invalid = DIBR_RUNTIME_INVALID_ARGUMENT, absent = DIBR_RUNTIME_ABSENT;
  said(dibr_session_open_renderer(nullptr, &renderer), invalid, "session is NULL");
  said(dibr_session_open_renderer(opened, nullptr), invalid, "renderer is NULL");
  said(dibr_session_open_renderer(opened, &renderer), absent, "has no renderer of its own");
  said(dibr_session_preprocess(nullptr, pixel, 1, 1, 3, &result), invalid, "session is NULL");
  said(dibr_session_preprocess(opened, nullptr, 1, 1, 3, &result), invalid, "pixels is NULL");
  said(dibr_session_preprocess(opened, pixel, 1, 1, 3, nullptr), invalid, "result is NULL");
  said(dibr_session_preprocess(opened, pixel, 1, 3, 1, &result), invalid, "got [1, 3, 1]");
  said(dibr_session_preprocess(opened, pixel, 1, 1, 3, &result), absent, "is no bundle that says how pictures");
  expect(renderer == nullptr && result == nullptr, "what fails leaves the pointers alone");
  dibr_session_close(opened);
}

SessionOptions options_with(const std::string& operators) {
  SessionOptions options;
  options.provider = "cpu";
  options.operator_library = operators;
  // ONNX Runtime's own threads synchronise by means that the thread sanitizer does not see: the callers' are enough.
  options.threads = 1;
  return options;
}

// Uint8 [height, width, channels] without a pattern.
std::vector<std::uint8_t> picture(std::int64_t height, std::int64_t width, std::int64_t channels) {
  std::vector<std::uint8_t> pixels;
  for (std::int64_t i = 0; i < height * width * channels; ++i) pixels.push_back(static_cast<std::uint8_t>(i * i % 251));
  return pixels;
}

// A batch of one, with the picture as the session's own graph makes it fit.
Result predict(const Session& session, const Matrix4& camera, std::int64_t channels) {
  const std::vector<std::uint8_t> pixels = picture(19, 45, channels);
  const Result photo = session.preprocess(tensor(pixels, {19, 45, channels}));
  const std::vector<float> view(camera.begin(), camera.end());
  return session.run({photo.tensors()[0], tensor(view, {1, 4, 4}, "world_to_clip")});
}

void photos_are_made_to_fit_by_many_threads(const Session& session, const Matrix4& camera) {
  std::vector<std::string> predicted(6);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < predicted.size(); ++t) {
    threads.emplace_back([&, t] { predicted[t] = bytes_of(predict(session, camera, 3 + t % 2)); });
  }
  for (std::thread& thread : threads) thread.join();
  bool equal = true;
  for (std::size_t t = 2; t < predicted.size(); ++t) equal = equal && predicted[t] == predicted[t % 2];
  expect(equal && predicted[0] != predicted[1], "the same picture is the same input in every thread");
}

// What the renderer draws of a prediction, from two cameras.
Result draw(const Session& renderer, const Result& prediction, const Matrix4& first, const Matrix4& second) {
  std::vector<std::vector<float>> twice;
  std::vector<TensorView> inputs;
  for (const TensorInfo& info : renderer.inputs()) {
    std::vector<float>& values = twice.emplace_back();
    std::vector<std::int64_t> shape = {2, 4, 4};
    if (info.name == "world_to_clip") {
      values.assign(first.begin(), first.end());
      values.insert(values.end(), second.begin(), second.end());
    } else {
      const TensorView& given = prediction[info.name];
      const auto part = given.values<float>();
      shape = given.shape();
      shape[0] = 2;
      for (int b = 0; b < 2; ++b) values.insert(values.end(), part.begin(), part.end());
    }
    inputs.push_back(tensor(values, shape, info.name));
  }
  return renderer.run(inputs);
}

void same_picture(const Result& drawn, const Result& prediction) {
  const auto seen = drawn["face_index"].values<std::int32_t>(), faces = prediction["face_index"].values<std::int32_t>();
  const auto picture = drawn["image"].values<float>(), image = prediction["image"].values<float>();
  std::size_t covered = 0;
  bool close = seen.size() == 2 * faces.size() && picture.size() == 2 * image.size();
  for (std::size_t i = 0; close && i < faces.size(); ++i) {
    covered += faces[i] >= 0 ? 1 : 0;
    close = seen[i] == faces[i];
  }
  for (std::size_t i = 0; close && i < image.size(); ++i) close = std::abs(picture[i] - image[i]) < 1e-5F;
  expect(close && covered > faces.size() / 10, "the renderer draws what the whole model draws");
}

}  // namespace

void test_photos(const std::string& bundle, const std::string& operators) {
  const Matrix4 camera = perspective(0.9, 4.0 / 3) * orbit(0.3, 0.4, 2), other = perspective(0.7) * orbit(2, 0, 3);
  std::unique_ptr<Session> renderer;
  std::unique_ptr<Result> prediction;
  {
    const Session session(bundle, options_with(operators));
    expect(session.can_preprocess() && session.has_renderer(), "the bundle has both of its own");
    photos_are_made_to_fit_by_many_threads(session, camera);
    prediction = std::make_unique<Result>(predict(session, camera, 3));
    session.open_renderer();  // and closes it
    renderer = std::make_unique<Session>(session.open_renderer());
  }
  const Result drawn = draw(*renderer, *prediction, camera, other);
  same_picture(drawn, *prediction);
  const std::string expected = bytes_of(drawn);
  std::atomic<int> equal{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] { equal += bytes_of(draw(*renderer, *prediction, camera, other)) == expected; });
  }
  for (std::thread& thread : threads) thread.join();
  expect(equal == 3, "threads that share a renderer, which outlives its session, draw what one draws");
}

void test_sessions(const std::string& bundle, const std::string& operators) {
  const SessionOptions options = options_with(operators);
  check_bundle(bundle);
  std::string expected;
  {
    const Session session(bundle, options);
    outputs_have_names_and_shapes(session);
    wrong_inputs_are_refused(session);
    parts_are_absent(session, bundle, operators);
    threads_share_a_session(session);
    expected = bytes_of(session.run(Inputs(2).views()));
  }
  sessions_come_and_go(bundle, options, expected);
}

}  // namespace dibr::test
