// render_mesh OUTPUT.png [MESH.obj]: draws a mesh of your own, without a network; a torus where no file is given.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "dibr/cameras.hpp"
#include "dibr/renderer.hpp"
#include "dibr/runtime.hpp"

namespace {

struct Mesh {
  std::vector<float> vertices;      // [V, 3]
  std::vector<std::int32_t> faces;  // [F, 3]
};

Mesh torus(int around = 96, int across = 48) {
  constexpr double two_pi = 6.283185307179586, tube = 0.4;
  Mesh mesh;
  for (int i = 0; i < around; ++i) {
    for (int j = 0; j < across; ++j) {
      const double u = two_pi * i / around, v = two_pi * j / across, radius = 1.0 + tube * std::cos(v);
      const double point[] = {radius * std::cos(u), tube * std::sin(v), -radius * std::sin(u)};
      mesh.vertices.insert(mesh.vertices.end(), point, point + 3);
      const int i1 = (i + 1) % around, j1 = (j + 1) % across;
      const int a = i * across + j, b = i1 * across + j, c = i1 * across + j1, d = i * across + j1;
      mesh.faces.insert(mesh.faces.end(), {a, b, c, a, c, d});
    }
  }
  return mesh;
}

// Of an OBJ file its vertices and faces; a face of more than three corners becomes a fan.
Mesh read_obj(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw dibr::Error("mesh " + path + " cannot be opened");
  Mesh mesh;
  for (std::string line, word; std::getline(file, line);) {
    std::istringstream words(line);
    words >> word;
    if (word == "v") {
      for (float x; mesh.vertices.size() % 3 != 2 && words >> x;) mesh.vertices.push_back(x);
      float z = 0;
      words >> z;
      mesh.vertices.push_back(z);
    } else if (word == "f") {
      std::vector<std::int32_t> corners;
      const auto count = static_cast<std::int32_t>(mesh.vertices.size() / 3);
      while (words >> word) {
        const std::int32_t index = std::stoi(word);  // ends at the first slash
        corners.push_back(index < 0 ? count + index : index - 1);
      }
      for (std::size_t k = 2; k < corners.size(); ++k) {
        mesh.faces.insert(mesh.faces.end(), {corners[0], corners[k - 1], corners[k]});
      }
    }
    word.clear();
  }
  return mesh;
}

// Unit normals of the vertices, [V, 3]: of the faces around, weighted by area.
std::vector<float> normals_of(const Mesh& mesh) {
  std::vector<float> normals(mesh.vertices.size(), 0.0F);
  for (std::size_t f = 0; f < mesh.faces.size(); f += 3) {
    const float* corner[3];
    for (int k = 0; k < 3; ++k) corner[k] = &mesh.vertices.at(3 * static_cast<std::size_t>(mesh.faces[f + k]));
    float a[3], b[3];
    for (int k = 0; k < 3; ++k) {
      a[k] = corner[1][k] - corner[0][k];
      b[k] = corner[2][k] - corner[0][k];
    }
    for (int k = 0; k < 3; ++k) {
      const float component = a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3];
      for (int c = 0; c < 3; ++c) normals[3 * static_cast<std::size_t>(mesh.faces[f + c]) + k] += component;
    }
  }
  for (std::size_t v = 0; v < normals.size(); v += 3) {
    const float length =
        std::sqrt(normals[v] * normals[v] + normals[v + 1] * normals[v + 1] + normals[v + 2] * normals[v + 2]);
    for (int k = 0; k < 3 && length > 0; ++k) normals[v + k] /= length;
  }
  return normals;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: render_mesh OUTPUT.png [MESH.obj]\n");
    return 2;
  }
  const Mesh mesh = argc == 3 ? read_obj(argv[2]) : torus();
  constexpr std::int64_t height = 512, width = 512;
  constexpr float light[] = {0.4F, 0.8F, 0.45F}, ambient = 0.25F, background = 1.0F;

  dibr::Renderer renderer;  // one thread per core
  const dibr::Matrix4 view = dibr::view_of(mesh.vertices, 1.0, 0.6, 0.5);
  const std::vector<float> positions = dibr::project<float>(mesh.vertices, view);
  const dibr::Renderer::Geometry geometry{positions, mesh.faces};
  const dibr::Renderer::Raster raster = renderer.rasterize(geometry, height, width);

  // The network's part, had it one: per-pixel normals, and a Lambertian surface in their light.
  const std::vector<float> normals = renderer.interpolate(normals_of(mesh), 3, mesh.faces, raster);
  std::vector<float> image(3 * raster.face_index.size(), background);
  for (std::size_t pixel = 0; pixel < raster.face_index.size(); ++pixel) {
    if (raster.face_index[pixel] < 0) continue;
    float cosine = 0;
    for (int k = 0; k < 3; ++k) cosine += light[k] * normals[3 * pixel + k];
    const float brightness = ambient + (1 - ambient) * std::fmax(cosine, 0.0F);
    const float color[] = {0.95F, 0.55F, 0.25F};
    for (int k = 0; k < 3; ++k) image[3 * pixel + k] = brightness * color[k];
  }
  dibr::write_png(argv[1], renderer.antialias(image, 3, geometry, raster), height, width);
  std::printf("%s: %zu vertices, %zu faces\n", argv[1], mesh.vertices.size() / 3, mesh.faces.size() / 3);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "render_mesh: %s\n", error.what());
  return 1;
}
