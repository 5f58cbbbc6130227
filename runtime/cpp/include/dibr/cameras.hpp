// Camera matrices, with the frames and conventions of dibr_deploy.cameras: right-handed, y up, clip space as in OpenGL.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "dibr/error.hpp"

namespace dibr {

using Vector3 = std::array<double, 3>;
// Row-major, for column vectors.
using Matrix4 = std::array<double, 16>;

inline Matrix4 operator*(const Matrix4& a, const Matrix4& b) {
  Matrix4 product{};
  for (int row = 0; row < 4; ++row) {
    for (int column = 0; column < 4; ++column) {
      for (int k = 0; k < 4; ++k) product[4 * row + column] += a[4 * row + k] * b[4 * k + column];
    }
  }
  return product;
}

// View to clip: full vertical opening angle in radians, width / height, clipping planes.
inline Matrix4 perspective(double fov_y, double aspect = 1.0, double near = 0.1, double far = 100.0) {
  const double y_scale = 1.0 / std::tan(fov_y / 2), depth = near - far;
  return {y_scale / aspect, 0, 0, 0, 0, y_scale, 0, 0, 0, 0, (far + near) / depth, 2 * far * near / depth, 0, 0, -1, 0};
}

// World to view, for a camera on a sphere around target. azimuth: angle around +y in radians, 0 puts the camera on +z,
// pi/2 on +x; elevation: angle above the xz plane.
inline Matrix4 orbit(double azimuth, double elevation, double distance, const Vector3& target = {0, 0, 0}) {
  const double sin_a = std::sin(azimuth), cos_a = std::cos(azimuth);
  const double sin_e = std::sin(elevation), cos_e = std::cos(elevation);
  const Vector3 rows[3] = {
      {cos_a, 0, -sin_a}, {-sin_e * sin_a, cos_e, -sin_e * cos_a}, {cos_e * sin_a, sin_e, cos_e * cos_a}};
  Matrix4 matrix{};
  for (int row = 0; row < 3; ++row) {
    for (int k = 0; k < 3; ++k) {
      matrix[4 * row + k] = rows[row][k];
      matrix[4 * row + 3] -= rows[row][k] * (target[k] + distance * rows[2][k]);
    }
  }
  matrix[15] = 1;
  return matrix;
}

// vertices [V, 3] in world space to clip space [V, 4].
template <class T>
std::vector<T> project(Span<const T> vertices, const Matrix4& world_to_clip) {
  if (vertices.size() % 3 != 0) throw Error("project: vertices must be [V, 3]");
  std::vector<T> positions;
  positions.reserve(vertices.size() / 3 * 4);
  for (std::size_t v = 0; v < vertices.size(); v += 3) {
    for (int row = 0; row < 4; ++row) {
      const double* m = &world_to_clip[4 * row];
      positions.push_back(static_cast<T>(m[0] * vertices[v] + m[1] * vertices[v + 1] + m[2] * vertices[v + 2] + m[3]));
    }
  }
  return positions;
}

// A view that shows all of vertices [V, 3] in an image of this shape, from around their middle: the camera of the first
// frame of `dibr render`. NaN and infinite vertices are left out.
inline Matrix4 view_of(Span<const float> vertices, double aspect = 1.0, double azimuth = 0.0, double elevation = 0.35,
                       double fov_y = 0.7) {
  constexpr double margin = 1.15;
  Vector3 low{}, high{1, 1, 1};
  const auto finite = [&](std::size_t v) {
    return std::isfinite(vertices[v]) && std::isfinite(vertices[v + 1]) && std::isfinite(vertices[v + 2]);
  };
  bool first = true;
  for (std::size_t v = 0; v + 2 < vertices.size(); v += 3) {
    if (!finite(v)) continue;
    for (int k = 0; k < 3; ++k) {
      const double value = vertices[v + k];
      low[k] = first ? value : std::fmin(low[k], value);
      high[k] = first ? value : std::fmax(high[k], value);
    }
    first = false;
  }
  Vector3 center{};
  for (int k = 0; k < 3; ++k) center[k] = (low[k] + high[k]) / 2;
  double radius = 1e-6;
  for (std::size_t v = 0; v + 2 < vertices.size(); v += 3) {
    if (!finite(v)) continue;
    double square = 0;
    for (int k = 0; k < 3; ++k) square += (vertices[v + k] - center[k]) * (vertices[v + k] - center[k]);
    radius = std::fmax(radius, std::sqrt(square));
  }
  const double narrower = std::fmin(fov_y, 2 * std::atan(std::tan(fov_y / 2) * aspect));
  const double distance = margin * radius / std::sin(narrower / 2);
  return perspective(fov_y, aspect, distance - radius, distance + radius) * orbit(azimuth, elevation, distance, center);
}

}  // namespace dibr
