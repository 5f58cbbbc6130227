// Binary glTF 2.0, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html: one mesh with one texture, its vertices
// in the order in which dibr_deploy.runtime.mesh_file writes them.
#include "glb.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "failure.h"
#include "images.h"

namespace dibr::runtime {
namespace {

using Json = nlohmann::ordered_json;
using Corner = std::pair<std::int64_t, std::int64_t>;  // vertex and uv

// Of the specification's enumerations.
constexpr int type_float = 5126, type_unsigned_int = 5125, target_vertices = 34962, target_indices = 34963;
constexpr int filter_linear = 9729, wrap_clamp = 33071;
constexpr std::uint32_t magic = 0x46546C67, version = 2, chunk_json = 0x4E4F534A, chunk_binary = 0x004E4942;

void expect(bool holds, const char* what) {
  if (!holds) fail(DIBR_RUNTIME_INVALID_ARGUMENT, what);
}

void check_indices(const char* name, const std::int64_t* faces, std::int64_t face_count, std::int64_t count) {
  for (std::int64_t i = 0; i < 3 * face_count; ++i) {
    if (faces[i] < 0 || faces[i] >= count) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, name, " must lie in 0 to ", count - 1, ", got ", faces[i], " in face ",
           i / 3);
    }
  }
}

void append(Bytes& bytes, const void* data, std::size_t count) {
  const auto* begin = static_cast<const unsigned char*>(data);
  bytes.insert(bytes.end(), begin, begin + count);
}

// The format is little-endian, as is every machine that this library is built for.
template <class T>
void append(Bytes& bytes, const std::vector<T>& values) {
  append(bytes, values.data(), sizeof(T) * values.size());
}

void append(Bytes& bytes, std::uint32_t value) { append(bytes, &value, sizeof value); }

void pad(Bytes& bytes, unsigned char with) {
  while (bytes.size() % 4 != 0) bytes.push_back(with);
}

// The binary chunk, and what the JSON chunk says of it.
struct Buffer {
  Bytes bytes;
  Json views = Json::array();

  template <class Values>
  int add(const Values& values, int target) {
    Json view = {{"buffer", 0}, {"byteOffset", bytes.size()}};
    const std::size_t start = bytes.size();
    append(bytes, values.data(), values.size() * sizeof(values[0]));
    view["byteLength"] = bytes.size() - start;
    if (target != 0) view["target"] = target;
    views.push_back(view);
    pad(bytes, 0);
    return static_cast<int>(views.size()) - 1;
  }
};

// The picture of a texture [3, H, W].
Picture texture_of(const dibr_textured_mesh& mesh) {
  const auto texels = static_cast<std::size_t>(mesh.texture_height * mesh.texture_width);
  std::vector<float> image(3 * texels);
  for (std::size_t i = 0; i < texels; ++i) {
    for (std::size_t c = 0; c < 3; ++c) image[3 * i + c] = mesh.texture[c * texels + i];
  }
  return to_picture(image.data(), mesh.texture_height, mesh.texture_width, 3);
}

void check(const dibr_textured_mesh& mesh) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() / 3;
  expect(mesh.vertex_count >= 1 && mesh.vertex_count <= most, "vertex_count must be from 1 to 2^31 / 3");
  expect(mesh.face_count >= 1 && mesh.face_count <= most, "face_count must be from 1 to 2^31 / 3");
  expect(mesh.uv_count >= 1 && mesh.uv_count <= most, "uv_count must be from 1 to 2^31 / 3");
  expect(mesh.texture_height >= 1 && mesh.texture_height <= (1 << 16), "texture_height must be from 1 to 65536");
  expect(mesh.texture_width >= 1 && mesh.texture_width <= (1 << 16), "texture_width must be from 1 to 65536");
  expect(mesh.vertices != nullptr && mesh.faces != nullptr && mesh.uvs != nullptr && mesh.uv_faces != nullptr &&
             mesh.texture != nullptr,
         "vertices, faces, uvs, uv_faces and texture must not be NULL");
  check_indices("faces", mesh.faces, mesh.face_count, mesh.vertex_count);
  check_indices("uv_faces", mesh.uv_faces, mesh.face_count, mesh.uv_count);
  // A file with a position that is no number is not valid glTF.
  for (std::int64_t i = 0; i < 3 * mesh.vertex_count; ++i) {
    if (!std::isfinite(mesh.vertices[i])) {
      fail(DIBR_RUNTIME_INVALID_ARGUMENT, "vertices must be finite, got ", mesh.vertices[i], " in vertex ", i / 3);
    }
  }
}

}  // namespace

Bytes encode_glb(const dibr_textured_mesh& mesh) {
  check(mesh);
  // A vertex of the file has one position and one uv; a vertex on a seam becomes several.
  std::vector<Corner> corners;
  for (std::int64_t i = 0; i < 3 * mesh.face_count; ++i) corners.emplace_back(mesh.faces[i], mesh.uv_faces[i]);
  std::vector<Corner> pairs = corners;
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  std::vector<std::uint32_t> indices;
  for (const Corner& corner : corners) {
    indices.push_back(static_cast<std::uint32_t>(std::lower_bound(pairs.begin(), pairs.end(), corner) - pairs.begin()));
  }
  std::vector<float> positions, uvs;
  float low[3], high[3];
  std::fill_n(low, 3, std::numeric_limits<float>::infinity());
  std::fill_n(high, 3, -std::numeric_limits<float>::infinity());
  for (const auto& [vertex, uv] : pairs) {
    for (int k = 0; k < 3; ++k) {
      const float value = mesh.vertices[3 * vertex + k];
      positions.push_back(value);
      low[k] = std::min(low[k], value);
      high[k] = std::max(high[k], value);
    }
    uvs.insert(uvs.end(), {mesh.uvs[2 * uv], mesh.uvs[2 * uv + 1]});
  }

  Buffer buffer;
  const int index_view = buffer.add(indices, target_indices), position_view = buffer.add(positions, target_vertices);
  const int uv_view = buffer.add(uvs, target_vertices), image_view = buffer.add(encode_png(texture_of(mesh)), 0);
  Json json;
  json["asset"] = {{"version", "2.0"}, {"generator", "dibr_deploy"}};
  json["scene"] = 0;
  json["scenes"] = {{{"nodes", {0}}}};
  json["nodes"] = {{{"mesh", 0}}};
  json["meshes"] = {
      {{"primitives", {{{"attributes", {{"POSITION", 1}, {"TEXCOORD_0", 2}}}, {"indices", 0}, {"material", 0}}}}}};
  json["materials"] = {{{"pbrMetallicRoughness",
                         {{"baseColorTexture", {{"index", 0}}}, {"metallicFactor", 0.0}, {"roughnessFactor", 1.0}}}}};
  json["textures"] = {{{"sampler", 0}, {"source", 0}}};
  json["samplers"] = {{{"magFilter", filter_linear}, {"wrapS", wrap_clamp}, {"wrapT", wrap_clamp}}};
  json["images"] = {{{"bufferView", image_view}, {"mimeType", "image/png"}}};
  json["accessors"] = {
      {{"bufferView", index_view}, {"componentType", type_unsigned_int}, {"count", indices.size()}, {"type", "SCALAR"}},
      {{"bufferView", position_view},
       {"componentType", type_float},
       {"count", pairs.size()},
       {"type", "VEC3"},
       {"min", {low[0], low[1], low[2]}},
       {"max", {high[0], high[1], high[2]}}},
      {{"bufferView", uv_view}, {"componentType", type_float}, {"count", pairs.size()}, {"type", "VEC2"}},
  };
  json["bufferViews"] = buffer.views;
  json["buffers"] = {{{"byteLength", buffer.bytes.size()}}};

  const std::string text = json.dump();
  Bytes json_chunk(text.begin(), text.end());
  pad(json_chunk, ' ');
  constexpr std::size_t header_bytes = 12, chunk_header_bytes = 8;
  const std::size_t total = header_bytes + 2 * chunk_header_bytes + json_chunk.size() + buffer.bytes.size();
  if (total > std::numeric_limits<std::uint32_t>::max()) {
    fail(DIBR_RUNTIME_INVALID_ARGUMENT, "the mesh would take ", total, " bytes, and a .glb file holds less than 2^32");
  }
  Bytes glb;
  append(glb, magic);
  append(glb, version);
  append(glb, static_cast<std::uint32_t>(total));
  append(glb, static_cast<std::uint32_t>(json_chunk.size()));
  append(glb, chunk_json);
  append(glb, json_chunk);
  append(glb, static_cast<std::uint32_t>(buffer.bytes.size()));
  append(glb, chunk_binary);
  append(glb, buffer.bytes);
  return glb;
}

}  // namespace dibr::runtime
