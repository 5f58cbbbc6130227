#include "dibr/renderer.hpp"

#include <cmath>
#include <functional>
#include <random>

#include "dibr/cameras.hpp"
#include "groups.h"

namespace dibr::test {
namespace {

// Random triangles, as many in each of the batch's meshes.
struct Soup {
  static constexpr std::int64_t batch = 2, vertices = 90, faces = 60, height = 37, width = 70;
  std::vector<float> positions, colors;
  std::vector<std::int32_t> indices;

  Soup() {
    std::mt19937 random(7);
    std::uniform_real_distribution<float> coordinate(-1.1F, 1.1F), w(0.7F, 2.0F);
    for (std::int64_t v = 0; v < batch * vertices; ++v) {
      const float scale = w(random);
      for (int k = 0; k < 3; ++k) positions.push_back(coordinate(random) * scale);
      positions.push_back(scale);
      for (int k = 0; k < 3; ++k) colors.push_back(coordinate(random));
    }
    for (std::int64_t i = 0; i < 3 * faces; ++i) indices.push_back(static_cast<std::int32_t>(random() % vertices));
  }
  Renderer::Geometry geometry() const { return {positions, indices, batch}; }
};

struct Pictures {
  Renderer::Raster raster;
  std::vector<float> colors, texels, blurred, mask, image;

  bool operator==(const Pictures& other) const {
    return raster.face_index == other.raster.face_index && raster.barycentrics == other.raster.barycentrics &&
           raster.depth == other.raster.depth && colors == other.colors && texels == other.texels &&
           blurred == other.blurred && mask == other.mask && image == other.image;
  }
};

Pictures draw(Renderer& renderer, const Soup& soup) {
  Pictures pictures;
  pictures.raster = renderer.rasterize(soup.geometry(), Soup::height, Soup::width);
  pictures.colors = renderer.interpolate(soup.colors, 3, soup.indices, pictures.raster, Soup::batch);
  std::vector<float> uv, levels;  // below and above the chain of levels, too
  for (std::size_t pixel = 0; pixel < pictures.raster.face_index.size(); ++pixel) {
    uv.insert(uv.end(), {pictures.colors[3 * pixel], pictures.colors[3 * pixel + 1]});
    levels.push_back(static_cast<float>(pixel % 61) / 10 - 1);
  }
  const std::vector<float> texture(soup.colors.begin(), soup.colors.begin() + 3 * 5 * 6);
  pictures.texels = renderer.texture(texture, 3, 5, 6, uv, pictures.raster, {DIBR_FILTER_BILINEAR, DIBR_WRAP_REPEAT});
  pictures.blurred =
      renderer.texture(texture, 3, 5, 6, uv, pictures.raster, {DIBR_FILTER_TRILINEAR, DIBR_WRAP_MIRROR}, levels);
  pictures.mask = renderer.soft_mask(soup.geometry(), pictures.raster, {300.0, 0.1, 5});
  pictures.image = renderer.antialias(pictures.texels, 3, soup.geometry(), pictures.raster);
  return pictures;
}

void pictures_do_not_depend_on_threads() {
  const Soup soup;
  Renderer alone(1), four(4);
  const Pictures expected = draw(alone, soup);
  const auto covered = std::count_if(expected.raster.face_index.begin(), expected.raster.face_index.end(),
                                     [](std::int32_t face) { return face >= 0; });
  expect(covered > 1000, "the soup covers a part of the image");
  expect(draw(four, soup) == expected, "four threads draw what one draws");

  std::atomic<int> equal{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 3; ++i) equal += draw(four, soup) == expected;
    });
  }
  for (std::thread& caller : callers) caller.join();
  expect(equal == 9, "three threads that share a renderer draw what one draws");
}

void wrapper_equals_the_c_abi() {
  const Soup soup;
  Renderer renderer(2);
  const Pictures pictures = draw(renderer, soup);
  std::vector<std::int32_t> face_index(pictures.raster.face_index.size());
  std::vector<float> barycentrics(3 * face_index.size()), depth(face_index.size());
  dibr_rasterize_params params{};
  params.dtype = DIBR_FLOAT32;
  params.batch = Soup::batch;
  params.vertices = Soup::vertices;
  params.faces = Soup::faces;
  params.height = Soup::height;
  params.width = Soup::width;
  params.perspective_correct = params.depth_clip = 1;
  params.positions = soup.positions.data();
  params.face_indices = soup.indices.data();
  params.face_index = face_index.data();
  params.barycentrics = barycentrics.data();
  params.depth = depth.data();
  expect(run(params, dibr_rasterize_workspace_size, dibr_rasterize, {1}) == DIBR_OK, "the C ABI rasterises");
  expect(face_index == pictures.raster.face_index && barycentrics == pictures.raster.barycentrics &&
             depth == pictures.raster.depth,
         "the wrapper gives what the C ABI gives");
  for (std::size_t pixel = 0; pixel < face_index.size(); ++pixel) {
    if (face_index[pixel] >= 0 && pictures.mask[pixel] != 1.0F) {
      expect(false, "the mask is 1 where a face covers the pixel");
      break;
    }
  }
}

void double_precision_agrees() {
  // One triangle over the lower left half, with the depth z = 0.5.
  const std::vector<double> positions = {-1, -1, 0.5, 1, 1, -1, 0.5, 1, -1, 1, 0.5, 1}, values = {0, 1, 0};
  const std::vector<std::int32_t> faces = {0, 1, 2};
  Renderer64 renderer(1);
  const auto raster = renderer.rasterize({positions, faces}, 4, 4);
  const std::vector<double> x = renderer.interpolate(values, 1, faces, raster);
  for (int row = 0; row < 4; ++row) {
    for (int column = 0; column < 4; ++column) {
      const auto pixel = static_cast<std::size_t>(4 * row + column);
      const bool covered = column <= row;
      expect((raster.face_index[pixel] >= 0) == covered, "the triangle covers the lower left half");
      expect(raster.depth[pixel] == (covered ? 0.5 : 1.0), "depth is the triangle's, and 1 beside it");
      expect(std::abs(x[pixel] - (covered ? (2 * column + 1) / 8.0 : 0.0)) < 1e-12, "the attribute grows with x");
    }
  }
}

void wrong_arguments_are_refused() {
  const Soup soup;
  Renderer renderer(1);
  const auto raster = renderer.rasterize(soup.geometry(), 8, 8);
  const auto refused = [](const char* words, const std::function<void()>& call) {
    std::string said;
    try {
      call();
    } catch (const RendererError& error) {
      said = error.status() == DIBR_INVALID_ARGUMENT ? error.what() : "";
    }
    expect(said.find(words) != std::string::npos, std::string("refused for ") + words + ", got: " + said);
  };
  const std::vector<float> seven(7);
  const std::vector<std::int32_t> out_of_range = {0, 1, 90}, two = {0, 1};
  refused("positions", [&] { renderer.rasterize({seven, soup.indices}, 8, 8); });
  refused("faces", [&] { renderer.rasterize({soup.positions, two, Soup::batch}, 8, 8); });
  refused("face_ranges", [&] { renderer.rasterize({soup.positions, soup.indices, Soup::batch, two}, 8, 8); });
  refused("face_valid", [&] { renderer.rasterize({soup.positions, soup.indices, Soup::batch, {}, two}, 8, 8); });
  refused("90", [&] { renderer.rasterize({soup.positions, out_of_range, Soup::batch}, 8, 8); });
  refused("height", [&] { renderer.rasterize(soup.geometry(), 0, 8); });
  refused("too large", [&] { renderer.rasterize(soup.geometry(), INT64_MAX, INT64_MAX); });
  refused("below 0", [&] { renderer.rasterize(soup.geometry(), -1, 8); });
  refused("attributes", [&] { renderer.interpolate(seven, 2, soup.indices, raster); });
  refused("channels", [&] { renderer.interpolate(seven, 0, soup.indices, raster); });
  refused("texture", [&] { renderer.texture(seven, 3, 2, 2, seven, raster); });
  refused("uv", [&] { renderer.texture(seven, 7, 1, 1, seven, raster); });
  const std::vector<float> uv(2 * raster.face_index.size());
  refused("mip_level", [&] { renderer.texture(seven, 7, 1, 1, uv, raster, {DIBR_FILTER_TRILINEAR, DIBR_WRAP_CLAMP}); });
  refused("mip_level", [&] { renderer.texture(seven, 7, 1, 1, uv, raster, {}, seven); });
  refused("image", [&] { renderer.antialias(seven, 3, soup.geometry(), raster); });
  Renderer::Geometry one_mesh = soup.geometry();
  one_mesh.batch = 1;
  refused("batches", [&] { renderer.soft_mask(one_mesh, raster); });
  Renderer::Raster cut = raster;
  cut.face_index.pop_back();
  refused("raster", [&] { renderer.soft_mask(soup.geometry(), cut); });
}

void every_task_runs_once() {
  ThreadPool pool(4);
  expect(pool.size() == 4, "a pool has as many threads as asked for");
  struct Count {
    std::atomic<int> calls{0};
  };
  std::atomic<int> wrong{0};
  const auto caller = [&](int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (const std::int64_t count : {0, 1, 2, 7, 200}) {
        std::vector<Count> counts(static_cast<std::size_t>(count));
        pool.parallel_for(
            count, [](void* state, std::int64_t i) { ++static_cast<Count*>(state)[i].calls; }, counts.data());
        for (const Count& one : counts) wrong += one.calls != 1;
      }
    }
  };
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) callers.emplace_back(caller, 40);
  for (std::thread& thread : callers) thread.join();
  expect(wrong == 0, "every task of every caller runs once");
}

void cameras_see_what_they_should() {
  // A point on the axis of the camera is in the middle; the top of the view is one distance * tan(fov / 2) above it.
  constexpr double fov = 0.8, distance = 3.0;
  const Matrix4 matrix = perspective(fov, 2.0, 1.0, 5.0) * orbit(0.7, 0.3, distance, {1, 2, 3});
  const std::vector<double> middle = project<double>(std::vector<double>{1, 2, 3}, matrix);
  expect(std::abs(middle[0]) < 1e-12 && std::abs(middle[1]) < 1e-12 && std::abs(middle[3] - distance) < 1e-12,
         "a camera looks at its target");
  const Matrix4 level = perspective(fov) * orbit(0.0, 0.0, distance);
  const std::vector<double> top = project<double>(std::vector<double>{0, distance * std::tan(fov / 2), 0}, level);
  expect(std::abs(top[1] / top[3] - 1) < 1e-12, "fov_y is the full vertical opening angle");

  const Soup soup;
  std::vector<float> vertices;
  for (std::size_t i = 0; i < soup.positions.size(); i += 4) {
    vertices.insert(vertices.end(), {soup.positions[i], soup.positions[i + 1], soup.positions[i + 2]});
  }
  vertices.insert(vertices.end(), {NAN, 0, 0, INFINITY, 1, 2});
  for (const double aspect : {0.4, 1.0, 2.5}) {
    bool inside = true;
    const std::vector<float> seen = project<float>(vertices, view_of(vertices, aspect, 1.0, 0.4));
    for (std::size_t i = 0; i + 8 < seen.size(); i += 4) {
      for (int k = 0; k < 3; ++k) inside = inside && std::abs(seen[i + k]) < seen[i + 3];
    }
    expect(inside, "a view shows all finite vertices");
  }
}

}  // namespace

void test_renderer() {
  pictures_do_not_depend_on_threads();
  wrapper_equals_the_c_abi();
  double_precision_agrees();
  wrong_arguments_are_refused();
  every_task_runs_once();
  cameras_see_what_they_should();
}

}  // namespace dibr::test
