// The chain of all ops, forward and backward, on scenes that must work: random soups across tile borders, and input
// that degenerates in every way docs/conventions.md allows. Whatever the buffers held before and however many threads
// there are, the bytes that come out are the same, and on no input are they NaN.
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "harness.h"

namespace dibr::test {
namespace {

struct Scene {
  const char* name;
  int64_t batch, vertices, faces, height, width;
  bool packed = false;  // face_ranges cut the faces up among the images
  bool masked = false;  // face_valid drops every third face
  bool perspective_correct = true;
  dibr_cull cull = DIBR_CULL_NONE;
  bool depth_clip = true;
  void (*spoil)(std::vector<double>& positions, std::vector<int32_t>& faces) = nullptr;
};

struct Inputs {
  std::vector<double> positions;  // [B, V, 4]
  std::vector<int32_t> faces;     // [F, 3]
  std::vector<int32_t> ranges;    // [B, 2]
  std::vector<int32_t> valid;     // [B, F]
};

Inputs make_inputs(const Scene& scene) {
  std::mt19937 random(20190912);
  std::uniform_real_distribution<double> coordinate(-1.2, 1.2), spread(-0.3, 0.3), w(0.6, 2.5);
  Inputs inputs;
  for (int64_t v = 0; v < scene.batch * scene.vertices; ++v) {
    // Neighbouring vertices lie close together, so that faces are small and many layers overlap.
    const double scale = w(random);
    static double centre[3];
    if (v % 3 == 0) std::generate(centre, centre + 3, [&] { return coordinate(random); });
    for (const double c : centre) inputs.positions.push_back((c + spread(random)) * scale);
    inputs.positions.push_back(scale);
  }
  for (int64_t f = 0; f < scene.faces; ++f) {
    const int64_t first = scene.vertices > 3 ? f * 3 % (scene.vertices - 2) : 0;
    for (int64_t k = 0; k < 3; ++k) inputs.faces.push_back(static_cast<int32_t>((first + k) % scene.vertices));
  }
  for (int64_t b = 0; b < scene.batch; ++b) {
    const int64_t start = b * scene.faces / scene.batch, end = (b + 1) * scene.faces / scene.batch;
    inputs.ranges.insert(inputs.ranges.end(), {static_cast<int32_t>(start), static_cast<int32_t>(end - start)});
    for (int64_t f = 0; f < scene.faces; ++f) inputs.valid.push_back(f % 3 != 0);
  }
  if (scene.spoil != nullptr) scene.spoil(inputs.positions, inputs.faces);
  return inputs;
}

// What the chain wrote, output by output.
using Outputs = std::vector<std::pair<std::string, Bytes>>;

template <class T>
class Chain {
 public:
  Chain(const Scene& scene, const Inputs& inputs, Threads threads, unsigned char fill)
      : scene_(scene),
        inputs_(inputs),
        positions_(inputs.positions.begin(), inputs.positions.end()),
        threads_(threads),
        fill_(fill) {}

  Outputs run_all() {
    const int64_t pixels = scene_.batch * scene_.height * scene_.width;
    const auto* face_index = output<int32_t>("face_index", pixels);
    const T* barycentrics = output<T>("barycentrics", 3 * pixels);
    T* depth = output<T>("depth", pixels);
    rasterize(face_index, barycentrics, depth);
    rasterize_backward(face_index, barycentrics, depth, output<T>("grad_positions", 4 * vertices()));
    // x and y double as texture coordinates: the first two of four attribute channels.
    const T* interpolated = output<T>("interpolated", 4 * pixels);
    interpolate(face_index, barycentrics, interpolated);
    interpolate_backward(face_index, barycentrics, interpolated, output<T>("grad_attributes", 4 * vertices()),
                         output<T>("grad_barycentrics", 3 * pixels));
    interpolate_raster_backward(face_index, barycentrics, interpolated,
                                output<T>("raster_grad_attributes", 4 * vertices()),
                                output<T>("raster_grad_positions", 4 * vertices()));
    const T* mask = output<T>("mask", pixels);
    soft_mask(face_index, mask);
    const T* mask_gradient = output<T>("mask_grad_positions", 4 * vertices());
    soft_mask_backward(face_index, mask, nullptr, mask_gradient);
    const Bytes kept = soft_mask_keeping(face_index, output<T>("mask_keeping", pixels));
    const T* recalled = output<T>("mask_grad_positions_recalled", 4 * vertices());
    soft_mask_backward(face_index, mask, kept.data(), recalled);
    expect(vertices() == 0 || std::memcmp(mask_gradient, recalled, sizeof(T) * 4 * vertices()) == 0,
           std::string(scene_.name) + ": another gradient from what the forward has kept");
    const T* antialiased = output<T>("antialiased", 4 * pixels);
    antialias(face_index, barycentrics, interpolated, antialiased);
    antialias_backward(face_index, barycentrics, interpolated, antialiased, output<T>("grad_image", 4 * pixels),
                       output<T>("antialias_grad_positions", 4 * vertices()));
    for (const dibr_filter filter : {DIBR_FILTER_NEAREST, DIBR_FILTER_BILINEAR, DIBR_FILTER_TRILINEAR}) {
      for (const dibr_wrap wrap : {DIBR_WRAP_CLAMP, DIBR_WRAP_REPEAT, DIBR_WRAP_MIRROR}) texture(filter, wrap);
    }
    render({{"face_index", face_index},
            {"barycentrics", barycentrics},
            {"depth", depth},
            {"mask", mask},
            {"interpolated", interpolated}});
    return std::move(outputs_);
  }

 private:
  static constexpr dibr_dtype kDtype = sizeof(T) == 8 ? DIBR_FLOAT64 : DIBR_FLOAT32;
  static constexpr int64_t kTextureSide = 5, kKnum = 6;
  static constexpr double kSigmainv = 700, kBoxlen = 0.1;

  int64_t vertices() const { return scene_.batch * scene_.vertices; }

  template <class U>
  U* output(const char* name, int64_t count) {
    outputs_.emplace_back(name, Bytes(sizeof(U) * count, fill_));
    return static_cast<U*>(outputs_.back().second.data());
  }

  template <class Params>
  Params sizes() const {
    Params params{};
    params.dtype = kDtype;
    params.batch = scene_.batch;
    params.vertices = scene_.vertices;
    params.faces = scene_.faces;
    params.height = scene_.height;
    params.width = scene_.width;
    params.face_indices = inputs_.faces.data();
    return params;
  }

  // And what says how the scene is drawn.
  template <class Params>
  Params drawn() const {
    auto params = sizes<Params>();
    params.perspective_correct = scene_.perspective_correct;
    params.cull = scene_.cull;
    params.depth_clip = scene_.depth_clip;
    params.positions = positions_.data();
    params.face_ranges = scene_.packed ? inputs_.ranges.data() : nullptr;
    params.face_valid = scene_.masked ? inputs_.valid.data() : nullptr;
    return params;
  }

  void check(dibr_status status, const char* op) const {
    expect(status == DIBR_OK, std::string(scene_.name) + ": " + op + ": " + dibr_last_error());
  }

  void rasterize(const int32_t* face_index, const T* barycentrics, T* depth) {
    auto params = drawn<dibr_rasterize_params>();
    params.face_index = const_cast<int32_t*>(face_index);
    params.barycentrics = const_cast<T*>(barycentrics);
    params.depth = depth;
    check(run(params, dibr_rasterize_workspace_size, dibr_rasterize, threads_, fill_), "rasterize");
  }

  void rasterize_backward(const int32_t* face_index, const T* barycentrics, const T* depth, T* grad_positions) {
    auto params = sizes<dibr_rasterize_backward_params>();
    params.perspective_correct = scene_.perspective_correct;
    params.positions = positions_.data();
    params.face_index = face_index;
    params.grad_barycentrics = barycentrics;
    params.grad_depth = depth;
    params.grad_positions = grad_positions;
    check(run(params, dibr_rasterize_backward_workspace_size, dibr_rasterize_backward, threads_, fill_),
          "rasterize_backward");
  }

  template <class Params>
  Params interpolate_params(const int32_t* face_index, const T* barycentrics) const {
    auto params = sizes<Params>();
    params.attribute_batch = scene_.batch;
    params.channels = 4;
    params.attributes = finite_attributes_.data();
    params.face_index = face_index;
    params.barycentrics = barycentrics;
    return params;
  }

  void interpolate(const int32_t* face_index, const T* barycentrics, const T* interpolated) {
    finite_attributes_.resize(4 * vertices());
    for (size_t i = 0; i < finite_attributes_.size(); ++i) finite_attributes_[i] = T(i % 17) / 8 - T(0.5);
    auto params = interpolate_params<dibr_interpolate_params>(face_index, barycentrics);
    params.output = const_cast<T*>(interpolated);
    check(run(params, dibr_interpolate_workspace_size, dibr_interpolate, threads_, fill_), "interpolate");
    uv_.resize(2 * scene_.batch * scene_.height * scene_.width);
    for (size_t i = 0; i < uv_.size(); ++i) uv_[i] = interpolated[i / 2 * 4 + i % 2];
  }

  void interpolate_backward(const int32_t* face_index, const T* barycentrics, const T* grad_output, T* grad_attributes,
                            T* grad_barycentrics) {
    auto params = interpolate_params<dibr_interpolate_backward_params>(face_index, barycentrics);
    params.grad_output = grad_output;
    params.grad_attributes = grad_attributes;
    params.grad_barycentrics = grad_barycentrics;
    check(run(params, dibr_interpolate_backward_workspace_size, dibr_interpolate_backward, threads_, fill_),
          "interpolate_backward");
  }

  void interpolate_raster_backward(const int32_t* face_index, const T* barycentrics, const T* grad_output,
                                   T* grad_attributes, T* grad_positions) {
    auto params = interpolate_params<dibr_interpolate_raster_backward_params>(face_index, barycentrics);
    params.raster_vertices = scene_.vertices;
    params.perspective_correct = 1;
    params.positions = positions_.data();
    params.raster_face_indices = params.face_indices;
    params.grad_output = grad_output;
    params.grad_attributes = grad_attributes;
    params.grad_positions = grad_positions;
    check(
        run(params, dibr_interpolate_raster_backward_workspace_size, dibr_interpolate_raster_backward, threads_, fill_),
        "interpolate_raster_backward");
  }

  template <class Params>
  Params soft_mask_params(const int32_t* face_index) const {
    auto params = sizes<Params>();
    params.sigmainv = kSigmainv;
    params.boxlen = kBoxlen;
    params.knum = kKnum;
    params.positions = positions_.data();
    params.face_ranges = scene_.packed ? inputs_.ranges.data() : nullptr;
    params.face_index = face_index;
    return params;
  }

  void soft_mask(const int32_t* face_index, const T* mask) {
    auto params = soft_mask_params<dibr_soft_mask_params>(face_index);
    params.mask = const_cast<T*>(mask);
    check(run(params, dibr_soft_mask_workspace_size, dibr_soft_mask, threads_, fill_), "soft_mask");
  }

  Bytes soft_mask_keeping(const int32_t* face_index, T* mask) {
    auto params = soft_mask_params<dibr_soft_mask_params>(face_index);
    params.mask = mask;
    params.keep = 1;
    Bytes kept(0, fill_);
    check(run(params, dibr_soft_mask_workspace_size, dibr_soft_mask, threads_, fill_, &kept), "soft_mask, keep");
    return kept;
  }

  void soft_mask_backward(const int32_t* face_index, const T* grad_mask, const void* kept, const T* grad_positions) {
    auto params = soft_mask_params<dibr_soft_mask_backward_params>(face_index);
    params.grad_mask = grad_mask;
    params.kept = kept;
    params.grad_positions = const_cast<T*>(grad_positions);
    check(run(params, dibr_soft_mask_backward_workspace_size, dibr_soft_mask_backward, threads_, fill_),
          "soft_mask_backward");
  }

  template <class Params>
  Params antialias_params(const int32_t* face_index, const T* barycentrics, const T* image) const {
    auto params = sizes<Params>();
    params.channels = 4;
    params.image = image;
    params.positions = positions_.data();
    params.face_ranges = scene_.packed ? inputs_.ranges.data() : nullptr;
    params.face_index = face_index;
    params.barycentrics = barycentrics;
    return params;
  }

  void antialias(const int32_t* face_index, const T* barycentrics, const T* image, const T* antialiased) {
    auto params = antialias_params<dibr_antialias_params>(face_index, barycentrics, image);
    params.output = const_cast<T*>(antialiased);
    check(run(params, dibr_antialias_workspace_size, dibr_antialias, threads_, fill_), "antialias");
  }

  void antialias_backward(const int32_t* face_index, const T* barycentrics, const T* image, const T* grad_output,
                          T* grad_image, T* grad_positions) {
    auto params = antialias_params<dibr_antialias_backward_params>(face_index, barycentrics, image);
    params.grad_output = grad_output;
    params.grad_image = grad_image;
    params.grad_positions = grad_positions;
    check(run(params, dibr_antialias_backward_workspace_size, dibr_antialias_backward, threads_, fill_),
          "antialias_backward");
  }

  template <class Params>
  Params texture_params(dibr_filter filter, dibr_wrap wrap) const {
    Params params{};
    params.dtype = kDtype;
    params.batch = scene_.batch;
    params.texture_batch = 1;
    params.channels = 3;
    params.texture_height = kTextureSide;
    params.texture_width = kTextureSide - 1;
    params.height = scene_.height;
    params.width = scene_.width;
    params.filter = filter;
    params.wrap = wrap;
    params.texture = texels_.data();
    params.uv = uv_.data();
    params.mip_level = levels_.data();
    return params;
  }

  void texture(dibr_filter filter, dibr_wrap wrap) {
    const int64_t pixels = scene_.batch * scene_.height * scene_.width;
    texels_.resize(3 * kTextureSide * (kTextureSide - 1));
    for (size_t i = 0; i < texels_.size(); ++i) texels_[i] = T(i % 7) / 7;
    levels_.resize(pixels);
    for (size_t i = 0; i < levels_.size(); ++i) levels_[i] = T(i % 11) / 3 - T(0.5);  // of a chain of three
    auto params = texture_params<dibr_texture_params>(filter, wrap);
    params.output = output<T>("sampled", 3 * pixels);
    check(run(params, dibr_texture_workspace_size, dibr_texture, threads_, fill_), "texture");
    auto backward = texture_params<dibr_texture_backward_params>(filter, wrap);
    backward.grad_output = params.output;
    backward.grad_texture = output<T>("grad_texture", static_cast<int64_t>(texels_.size()));
    backward.grad_uv = output<T>("grad_uv", 2 * pixels);
    backward.grad_mip_level = output<T>("grad_mip_level", pixels);
    check(run(backward, dibr_texture_backward_workspace_size, dibr_texture_backward, threads_, fill_),
          "texture_backward");
  }

  // Everything at once; `expected` is what the single ops gave, by name.
  void render(const std::map<std::string, const void*>& expected) {
    const int64_t pixels = scene_.batch * scene_.height * scene_.width;
    auto params = drawn<dibr_render_params>();
    params.texture_dtype = params.attribute_dtype = kDtype;
    params.outputs = DIBR_RENDER_COLOR | DIBR_RENDER_MASK | DIBR_RENDER_FACE_INDEX | DIBR_RENDER_DEPTH |
                     DIBR_RENDER_BARYCENTRICS | DIBR_RENDER_UV | DIBR_RENDER_FIRST_ATTRIBUTES;
    params.sigmainv = kSigmainv;
    params.boxlen = kBoxlen;
    params.knum = kKnum;
    params.texture_batch = 1;
    params.texture_channels = 3;
    params.texture_height = kTextureSide;
    params.texture_width = kTextureSide - 1;
    params.filter = DIBR_FILTER_BILINEAR;
    params.wrap = DIBR_WRAP_REPEAT;
    params.texture = texels_.data();
    const T* values = finite_attributes_.data();  // four a vertex, or texture coordinates of half as many
    params.uv = {scene_.batch, scene_.vertices, 2, values, inputs_.faces.data(), output<T>("render uv", 2 * pixels)};
    params.attributes[0] = {scene_.batch, scene_.vertices,      4,
                            values,       inputs_.faces.data(), output<T>("render attributes", 4 * pixels)};
    params.color = output<T>("render color", 3 * pixels);
    params.mask = output<T>("render mask", pixels);
    params.face_index = output<int32_t>("render face_index", pixels);
    params.depth = output<T>("render depth", pixels);
    params.barycentrics = output<T>("render barycentrics", 3 * pixels);
    check(run(params, dibr_render_workspace_size, dibr_render, threads_, fill_), "render");
    const auto expect_same = [&](const char* name, const void* actual, size_t bytes) {
      expect(bytes == 0 || std::memcmp(expected.at(name), actual, bytes) == 0,
             std::string(scene_.name) + ": render gives another " + name);
    };
    expect_same("face_index", params.face_index, sizeof(int32_t) * pixels);
    expect_same("barycentrics", params.barycentrics, sizeof(T) * 3 * pixels);
    expect_same("depth", params.depth, sizeof(T) * pixels);
    expect_same("mask", params.mask, sizeof(T) * pixels);
    expect_same("interpolated", params.attributes[0].output, sizeof(T) * 4 * pixels);
  }

  const Scene& scene_;
  const Inputs& inputs_;
  std::vector<T> positions_, finite_attributes_, uv_, texels_, levels_;
  Threads threads_;
  unsigned char fill_;
  Outputs outputs_;
};

template <class T>
void expect_no_nan(const Scene& scene, const Outputs& outputs) {
  for (const auto& [name, bytes] : outputs) {
    if (name == "face_index" || name == "render face_index") continue;
    const T* values = static_cast<const T*>(bytes.data());
    const bool clean = std::none_of(values, values + bytes.size() / sizeof(T), [](T x) { return std::isnan(x); });
    expect(clean, std::string(scene.name) + ": " + name + " has a NaN");
  }
}

void expect_equal(const Scene& scene, const Outputs& expected, const Outputs& actual, const std::string& what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    expect(expected[i].second == actual[i].second, std::string(scene.name) + ": " + expected[i].first + ": " + what);
  }
}

template <class T>
void test_scene(const Scene& scene) {
  const Inputs inputs = make_inputs(scene);
  const Outputs expected = Chain<T>(scene, inputs, {1}, 0x00).run_all();
  expect_no_nan<T>(scene, expected);
  expect_equal(scene, expected, Chain<T>(scene, inputs, {1}, 0xFF).run_all(), "depends on what the buffer held");
  for (const int threads : {2, 7}) {
    expect_equal(scene, expected, Chain<T>(scene, inputs, {threads}, 0x00).run_all(),
                 "differs on " + std::to_string(threads) + " threads");
  }
  const Threads backwards = {1, true};
  expect_equal(scene, expected, Chain<T>(scene, inputs, backwards, 0x00).run_all(), "depends on the order of tasks");
}

void test_scenes(const std::vector<Scene>& scenes) {
  for (const Scene& scene : scenes) {
    test_scene<float>(scene);
    test_scene<double>(scene);
  }
}

// FNV-1a.
uint64_t digest(const Bytes& bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto* byte = static_cast<const unsigned char*>(bytes.data());
  for (uint64_t i = 0; i < bytes.size(); ++i) hash = (hash ^ byte[i]) * 0x100000001b3;
  return hash;
}

template <class T>
void print_digests(const Scene& scene) {
  for (const auto& [name, bytes] : Chain<T>(scene, make_inputs(scene), {1}, 0x00).run_all()) {
    std::printf("%016llx %s, float%d: %s\n", static_cast<unsigned long long>(digest(bytes)), scene.name,
                int(8 * sizeof(T)), name.c_str());
  }
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<Scene> ordinary_scenes() {
  Scene packed{"packed topologies", 3, 60, 90, 33, 65};
  packed.packed = true;
  Scene masked{"face_valid, culled, screen-space weights", 2, 60, 90, 64, 64};
  masked.masked = true;
  masked.perspective_correct = false;
  masked.cull = DIBR_CULL_BACK;
  Scene unclipped{"no depth clipping", 1, 60, 90, 40, 31};
  unclipped.depth_clip = false;
  return {{"one pixel", 1, 9, 3, 1, 1},
          {"one row", 2, 30, 20, 1, 129},
          {"tile borders", 1, 300, 700, 129, 97},
          {"many faces on few pixels", 1, 3000, 5000, 17, 19},
          packed,
          masked,
          unclipped};
}

std::vector<Scene> degenerate_scenes() {
  using Positions = std::vector<double>;
  using Faces = std::vector<int32_t>;
  Scene nan{"NaN and infinite vertices", 2, 30, 40, 21, 34};
  nan.spoil = [](Positions& p, Faces&) {
    for (size_t i = 0; i < p.size(); i += 7) p[i] = i % 2 == 0 ? kNan : i % 3 == 0 ? kInfinity : -kInfinity;
  };
  Scene behind{"faces behind the camera and through it", 2, 30, 40, 21, 34};
  behind.spoil = [](Positions& p, Faces&) {
    for (size_t i = 3; i < p.size(); i += 8) p[i] = i % 3 == 0 ? 0.0 : -p[i];
  };
  Scene near_plane{"faces through the near plane", 2, 30, 40, 21, 34};
  near_plane.spoil = [](Positions& p, Faces&) {
    for (size_t i = 2; i < p.size(); i += 8) p[i] = -1.7 * p[i + 1];
  };
  Scene repeated{"repeated vertices", 1, 30, 40, 21, 34};
  repeated.spoil = [](Positions&, Faces& f) {
    for (size_t i = 0; i + 1 < f.size(); i += 3) f[i + 1] = f[i];
  };
  Scene collapsed{"all vertices in one point", 1, 30, 40, 21, 34};
  collapsed.spoil = [](Positions& p, Faces&) {
    for (size_t i = 0; i < p.size(); ++i) p[i] = p[i % 4];
  };
  Scene collinear{"zero-area faces", 1, 30, 40, 21, 34};
  collinear.spoil = [](Positions& p, Faces&) {
    for (size_t i = 0; i < p.size(); i += 4) p[i + 1] = p[i];
  };
  Scene huge{"huge coordinates", 1, 30, 40, 21, 34};
  huge.spoil = [](Positions& p, Faces&) {
    for (size_t i = 0; i < p.size(); i += 5) p[i] *= i % 2 == 0 ? 1e30 : 1e18;
  };
  Scene tiny{"tiny coordinates", 1, 30, 40, 21, 34};
  tiny.spoil = [](Positions& p, Faces&) {
    for (double& x : p) x *= 1e-30;
  };
  return {{"empty batch", 0, 30, 40, 21, 34},
          {"no faces", 2, 30, 0, 21, 34},
          {"no vertices, no faces", 2, 0, 0, 21, 34},
          nan,
          behind,
          near_plane,
          repeated,
          collapsed,
          collinear,
          huge,
          tiny};
}

}  // namespace

void test_ordinary() { test_scenes(ordinary_scenes()); }
void test_degenerate() { test_scenes(degenerate_scenes()); }

void print_digests() {
  for (const auto& scenes : {ordinary_scenes(), degenerate_scenes()}) {
    for (const Scene& scene : scenes) {
      print_digests<float>(scene);
      print_digests<double>(scene);
    }
  }
}

}  // namespace dibr::test
