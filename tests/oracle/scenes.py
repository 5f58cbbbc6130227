"""Generated scenes for the ops: everything that docs/conventions.md calls ordinary input, small enough for brute force.

Every scene is a function of nothing and returns the same numbers each time. Positions are float64 with full mantissas;
`Scene.rounded_to` gives what a float32 kernel gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Scene:
    """Input of rasterize: positions [B, V, 4] clip space, faces [F, 3] int32, face_ranges [B, 2], face_valid [B, F].

    layered: covers 20-80 % of the image, with several faces behind one another."""

    name: str
    positions: np.ndarray
    faces: np.ndarray
    height: int
    width: int
    face_ranges: np.ndarray | None = None
    face_valid: np.ndarray | None = None
    cull: str = "none"
    depth_clip: bool = True
    layered: bool = False

    def rounded_to(self, dtype: np.dtype | type) -> Scene:
        return replace(self, positions=self.positions.astype(dtype))


def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere of 20 * 4^subdivisions faces, counter-clockwise from outside: vertices [V, 3], faces [F, 3]."""
    golden = (1.0 + 5.0**0.5) / 2.0
    corners = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    vertices = np.array(corners + [(z, x, y) for x, y, z in corners] + [(y, z, x) for x, y, z in corners], dtype=float)
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    faces = _convex_hull_faces(vertices)
    for _ in range(subdivisions):
        vertices, faces = _subdivide(vertices, faces)
        vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    return vertices, faces.astype(np.int32)


def _convex_hull_faces(vertices: np.ndarray) -> np.ndarray:
    """Triangles of mutually nearest vertices, wound outwards."""
    distance = np.linalg.norm(vertices[:, None] - vertices[None], axis=2)
    near = np.isclose(distance, distance[distance > 0].min())
    n = len(vertices)
    triples = [
        (i, j, k) for i in range(n) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]
    ]
    outward = [np.linalg.det(vertices[list(triple)]) > 0 for triple in triples]
    return np.array([t if out else t[::-1] for t, out in zip(triples, outward, strict=True)])


def _subdivide(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each triangle into four by its edges' midpoints."""
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2), axis=2).reshape(-1, 2)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middle = inverse.reshape(-1, 3) + len(vertices)
    a, b, c = faces.T
    ab, bc, ca = middle.T
    parts = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    new_faces = np.stack([np.stack(part, axis=1) for part in parts], axis=1).reshape(-1, 3)
    return np.concatenate([vertices, vertices[unique].mean(axis=1)]), new_faces


def perspective(field_of_view: float, aspect: float, near: float, far: float) -> np.ndarray:
    """OpenGL projection [4, 4]; field_of_view is vertical, in degrees."""
    focal = 1.0 / np.tan(np.radians(field_of_view) / 2.0)
    return np.array(
        [
            [focal / aspect, 0.0, 0.0, 0.0],
            [0.0, focal, 0.0, 0.0],
            [0.0, 0.0, (far + near) / (near - far), 2.0 * far * near / (near - far)],
            [0.0, 0.0, -1.0, 0.0],
        ]
    )


def homogeneous(points: np.ndarray) -> np.ndarray:
    """[..., 3] to [..., 4] with w = 1."""
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)


def project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Clip-space positions [..., 4] of points [..., 3]."""
    return homogeneous(points) @ matrix.T


def rotation(angle: float, axis: int) -> np.ndarray:
    """Right-handed rotation [3, 3] about a coordinate axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def soup(seed: int, count: int, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Unconnected random triangles about centres in [-1, 1]^3: points [3 count, 3], faces [count, 3]."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-1.0, 1.0, (count, 1, 3))
    points = centres + rng.normal(size=(count, 3, 3)) * size
    return points.reshape(-1, 3), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def merge(*meshes: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Several meshes as one."""
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in meshes])
    faces = [faces + offset for (_, faces), offset in zip(meshes, offsets, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces).astype(np.int32)


def soup_orthographic() -> Scene:
    points, faces = soup(1, 300, 0.16)
    return Scene("soup_orthographic", homogeneous(points * [1, 1, 0.8])[None], faces, 144, 192, layered=True)


def soup_culled() -> Scene:
    points, faces = soup(2, 500, 0.16)
    return Scene("soup_culled", homogeneous(points * [1, 1, 0.8])[None], faces, 129, 127, cull="back", layered=True)


def soup_perspective() -> Scene:
    points, faces = soup(3, 150, 0.3)
    clip = project(points * [1.2, 0.8, 1] - [0, 0, 3], perspective(40, 1.6, 0.5, 10))
    return Scene("soup_perspective", clip[None], faces, 140, 224, layered=True)


def soup_through_the_camera() -> Scene:
    """Triangles before, across and behind the near plane and beyond the far plane, some with w <= 0 corners."""
    points, faces = soup(4, 60, 0.4)
    clip = project(points * [1.0, 1.0, 2.5] - [0, 0, 2], perspective(70, 1.0, 0.5, 4))
    return Scene("soup_through_the_camera", clip[None], faces, 180, 180, layered=True)


def sphere_orthographic() -> Scene:
    vertices, faces = icosphere(3)
    return Scene("sphere_orthographic", homogeneous(vertices * 0.8)[None], faces, 160, 160, layered=True)


def sphere_perspective() -> Scene:
    """An odd, large image with one culled sphere."""
    vertices, faces = icosphere(2)
    clip = project(vertices - [0.2, 0.1, 2.4], perspective(60, 513 / 257, 0.5, 10))
    return Scene("sphere_perspective", clip[None], faces, 257, 513, cull="back")


def nested_spheres() -> Scene:
    """Six depth layers: three spheres inside each other, turned against one another."""
    vertices, faces = icosphere(2)
    shells = [(vertices @ rotation(0.4 * k, k).T * (0.85 - 0.2 * k), faces) for k in range(3)]
    points, faces = merge(*shells[::-1])
    order = np.random.default_rng(5).permutation(len(faces))
    clip = project(points - [0, 0, 2.5], perspective(45, 1.0, 0.5, 10))
    return Scene("nested_spheres", clip[None], faces[order], 256, 256, layered=True)


def slivers() -> Scene:
    """A fan of triangles a hundredth to a millionth as wide as long, over a few wide ones."""
    rng = np.random.default_rng(6)
    count = 80
    start, angle = rng.uniform(-1, 1, (count, 2)), rng.uniform(0, 2 * np.pi, count)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    width = 10.0 ** rng.uniform(-6, -2, count)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * width[:, None]
    thin = np.stack([start, start + along * 1.5, start + along * rng.uniform(0.1, 1.4, (count, 1)) + across], axis=1)
    points = np.concatenate([thin, rng.uniform(-0.4, 0.4, (count, 3, 1))], axis=2).reshape(-1, 3)
    wide, wide_faces = soup(7, 30, 0.4)
    thin_faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    points, faces = merge((points, thin_faces), (wide * [1, 1, 0.5], wide_faces))
    return Scene("slivers", homogeneous(points)[None], faces, 240, 240, layered=True)


def ground_under_the_camera() -> Scene:
    """Two large triangles that pass under the camera to behind it, and a sphere that stands on them."""
    square = np.array([[-9.0, -1, 7], [9, -1, 7], [9, -1, -9], [-9, -1, -9]])
    ball, ball_faces = icosphere(1)
    points, faces = merge((square, np.array([[0, 1, 2], [0, 2, 3]])), (ball * 0.7 + [0.3, -0.3, -2.5], ball_faces))
    clip = project(points, perspective(75, 1.25, 0.3, 20))
    return Scene("ground_under_the_camera", clip[None], faces, 160, 200, layered=True)


def camera_inside_a_sphere() -> Scene:
    """Half the sphere is behind the camera; a hole is cut so that background stays visible."""
    vertices, faces = icosphere(2)
    faces = faces[vertices[faces].mean(axis=1)[:, 0] < 0.2]
    clip = project(vertices @ rotation(0.3, 1).T, perspective(90, 1.0, 0.2, 5))
    return Scene("camera_inside_a_sphere", clip[None], faces, 192, 160)


def across_the_border() -> Scene:
    """Triangles larger than the image, most corners outside it."""
    points, faces = soup(21, 6, 1.6)
    return Scene("across_the_border", homogeneous(points * [1, 1, 0.2] * 2)[None], faces, 100, 177, layered=True)


def slanted_through_near_and_far() -> Scene:
    """w = 1 with z from -2 to 2: near clipping and the far discard without perspective."""
    points, faces = soup(9, 40, 0.5)
    return Scene("slanted_through_near_and_far", homogeneous(points * [1, 1, 1.6])[None], faces, 160, 160, layered=True)


def without_depth_clip() -> Scene:
    """z far outside [-w, w], kept; w = 1."""
    points, faces = soup(10, 50, 0.25)
    return Scene(
        "without_depth_clip", homogeneous(points * [1, 1, 30])[None], faces, 120, 128, depth_clip=False, layered=True
    )


def without_depth_clip_behind_the_camera() -> Scene:
    """Corners with w <= 0 and no near plane: faces reach to the horizon."""
    points, faces = soup(11, 25, 0.45)
    clip = project(points * [1, 1, 2] - [0, 0, 1.5], perspective(70, 1.0, 0.5, 4))
    return Scene("without_depth_clip_behind_the_camera", clip[None], faces, 150, 150, depth_clip=False, layered=True)


def any_homogeneous_corners() -> Scene:
    """Corners anywhere in clip space, w of any sign: every way of being cut, by w = 0, near and far plane at once."""
    positions = np.random.default_rng(16).normal(size=(4, 36, 4)) * [1, 1, 1, 1.5]
    return Scene("any_homogeneous_corners", positions, np.arange(36, dtype=np.int32).reshape(12, 3), 90, 75)


def random_scene(seed: int) -> Scene:
    """Up to 24 unconnected faces of one of four kinds on up to 69x69 pixels, with random culling and depth clipping."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    positions = homogeneous(rng.uniform(-1.3, 1.3, (3 * count, 3)) * 10 ** rng.uniform(-1, 1))
    if seed % 4 == 1:
        positions *= rng.uniform(-1, 3, (3 * count, 1))
    if seed % 4 == 2:
        positions = rng.normal(size=(3 * count, 4)) * [1, 1, 1, 1.5]
    if seed % 4 == 3:
        positions = np.round(positions * 8) / 8
    height, width = (int(size) for size in rng.integers(1, 70, 2))
    faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    cull, depth_clip = str(rng.choice(["none", "back"])), bool(rng.random() < 0.7)
    return Scene(f"random_{seed}", positions[None], faces, height, width, cull=cull, depth_clip=depth_clip)


def packed_topologies() -> Scene:
    """Five images: a sphere, a soup, nothing, both (overlapping ranges), a sphere with negative winding culled away."""
    ball, ball_faces = icosphere(1)
    ball = ball @ rotation(0.3, 0) @ rotation(0.7, 1)
    points, soup_faces = soup(12, 40, 0.2)
    faces = np.concatenate([ball_faces, soup_faces, ball_faces[:, ::-1]]).astype(np.int32)
    vertices = max(len(ball), len(points))
    positions = np.zeros((5, vertices, 4))
    positions[:, :, 3] = 1.0
    positions[[0, 3, 4], : len(ball)] = homogeneous(ball * 0.7)
    positions[1, : len(points)] = project(points - [0, 0, 3], perspective(45, 1.0, 0.5, 10))
    positions[2] = np.nan
    positions[3, len(ball) : len(points)] = homogeneous(points[len(ball) :] * [1, 1, 0.5])
    n, m = len(ball_faces), len(soup_faces)
    ranges = np.array([[0, n], [n, m], [n, 0], [0, n + m], [n + m, n]], dtype=np.int32)
    return Scene("packed_topologies", positions, faces, 80, 104, face_ranges=ranges, cull="back")


def valid_faces() -> Scene:
    """The same soup three times with all, some and none of its faces present."""
    points, faces = soup(13, 60, 0.2)
    valid = np.stack([np.ones(60, bool), np.random.default_rng(13).random(60) < 0.5, np.zeros(60, bool)])
    positions = np.repeat(homogeneous(points * [1, 1, 0.8])[None], 3, axis=0)
    return Scene("valid_faces", positions, faces, 96, 96, face_valid=valid)


def degenerate_faces() -> Scene:
    """Repeated vertices, zero area, NaN and infinite vertices, w = 0, all behind the camera, among ordinary faces."""
    points, faces = soup(14, 30, 0.25)
    positions = homogeneous(points * [1, 1, 0.6])
    special = np.array(
        [
            [-0.53, -0.53, -0.9, 1],
            [0.01, 0.01, -0.9, 1],
            [0.51, 0.51, -0.9, 1],
            [np.nan, 0.1, -0.9, 1],
            [0.1, np.inf, -0.9, 1],
            [-np.inf, 0.1, np.nan, 1],
            [0.3, 0.3, -0.9, np.nan],
            [0, 0, 0, 0],
            [0.9, 0.9, -0.9, -1],
            [-0.9, 0.9, -0.9, -1],
            [0.1, -0.9, -0.9, -1],
        ]
    )
    n = len(positions)
    bad = [
        [0, 1, 2],
        [0, 0, 1],
        [1, 1, 1],
        [0, 1, 3],
        [0, 2, 4],
        [5, 1, 2],
        [6, 0, 2],
        [7, 7, 7],
        [8, 9, 10],
        [10, 9, 8],
    ]
    faces = np.concatenate([np.array(bad) + n, faces]).astype(np.int32)
    return Scene("degenerate_faces", np.concatenate([positions, special])[None], faces, 110, 90)


def no_faces() -> Scene:
    return Scene("no_faces", homogeneous(np.zeros((2, 3, 3))), np.zeros((0, 3), np.int32), 5, 6)


def no_vertices() -> Scene:
    return Scene("no_vertices", np.zeros((1, 0, 4)), np.zeros((0, 3), np.int32), 3, 4)


def empty_batch() -> Scene:
    return Scene("empty_batch", np.zeros((0, 3, 4)), np.array([[0, 1, 2]], np.int32), 5, 6)


def tiny_images() -> list[Scene]:
    points, faces = soup(15, 12, 0.6)
    positions = homogeneous(points * [1, 1, 0.6])[None]
    sizes = [(1, 1), (1, 9), (9, 1), (2, 3), (17, 33), (8, 8), (31, 16)]
    return [Scene(f"tiny_{height}x{width}", positions, faces, height, width) for height, width in sizes]


SCENES: tuple[Callable[[], Scene], ...] = (
    soup_orthographic,
    soup_culled,
    soup_perspective,
    soup_through_the_camera,
    sphere_orthographic,
    sphere_perspective,
    nested_spheres,
    slivers,
    ground_under_the_camera,
    camera_inside_a_sphere,
    across_the_border,
    slanted_through_near_and_far,
    without_depth_clip,
    without_depth_clip_behind_the_camera,
    any_homogeneous_corners,
    packed_topologies,
    valid_faces,
    degenerate_faces,
    no_faces,
    no_vertices,
    empty_batch,
)


def all_scenes() -> list[Scene]:
    return [make() for make in SCENES] + tiny_images()


def tiled_plane(columns: int, rows: int, jitter: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A connected grid of triangles over [-1.25, 1.25]^2, w = 1, z = 0: positions [V, 4], faces, both diagonals occur.

    With jitter 0 and suitable numbers of columns and rows its vertices and edges go exactly through pixel centres."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(1.25, -1.25, rows + 1), np.linspace(-1.25, 1.25, columns + 1), indexing="ij")
    x = x + rng.uniform(-jitter, jitter, x.shape)
    y = y + rng.uniform(-jitter, jitter, y.shape)
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    faces = []
    for row in range(rows):
        for column in range(columns):
            a = row * (columns + 1) + column
            b, c, d = a + 1, a + columns + 1, a + columns + 2
            faces += [[a, c, d], [a, d, b]] if (row + column) % 2 else [[a, c, b], [b, c, d]]
    return homogeneous(points), np.array(faces, dtype=np.int32)
