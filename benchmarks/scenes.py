"""The scenes that are drawn, as arrays that every peer gets alike.

Back faces are culled everywhere. Where a scene is not closed, its faces are turned to the viewer beforehand, so that
peers which cannot cull, or cannot leave it, draw the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

FILL = 0.37
"""Part of the image that a sphere covers."""
TEXTURE_SIZE = 512


@dataclasses.dataclass(frozen=True)
class Scene:
    """Arrays of one scene: B views of one mesh."""

    name: str
    size: int
    """Rows and columns of the image."""
    positions: np.ndarray
    """float32 [B, V, 4], clip space."""
    faces: np.ndarray
    """int32 [F, 3]."""

    @property
    def batch(self) -> int:
        return len(self.positions)

    @property
    def colours(self) -> np.ndarray:
        """float32 [B, V, 3], random."""
        return np.random.default_rng(0).random((*self.positions.shape[:2], 3), np.float32)

    @property
    def image_gradient(self) -> np.ndarray:
        """float32 [B, H, W, 3]: the gradient of a loss with respect to the image, random."""
        return np.random.default_rng(1).random((self.batch, self.size, self.size, 3), np.float32)

    @property
    def mask_gradient(self) -> np.ndarray:
        """float32 [B, H, W]."""
        return np.ascontiguousarray(self.image_gradient[..., 0])

    @property
    def texels(self) -> np.ndarray:
        """float32 [B, 3, Ht, Wt], random."""
        return np.random.default_rng(2).random((self.batch, 3, TEXTURE_SIZE, TEXTURE_SIZE), np.float32)

    @property
    def uv(self) -> np.ndarray:
        """float32 [B, H, W, 2] in 0..1: a turned and bent view of the whole texture."""
        v, u = np.meshgrid(*2 * [(np.arange(self.size) + 0.5) / self.size], indexing="ij")
        turned = np.stack([0.9 * u + 0.1 * v * v, 0.9 * v + 0.1 * (1 - u) ** 2], -1).astype(np.float32)
        return np.repeat(turned[None], self.batch, 0)

    def save(self, path: Path) -> None:
        np.savez(path, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @staticmethod
    def load(path: Path) -> Scene:
        with np.load(path) as data:
            return Scene(str(data["name"]), int(data["size"]), data["positions"], data["faces"])


@dataclasses.dataclass(frozen=True)
class SceneSpec:
    """How to build a scene; hashable, so that a scene is built once."""

    name: str
    size: int
    build: Callable[[], tuple[np.ndarray, np.ndarray]]
    """Gives positions and faces."""

    def scene(self) -> Scene:
        positions, faces = self.build()
        return Scene(self.name, self.size, np.ascontiguousarray(positions, np.float32), faces)


def sphere(faces: int, size: int, batch: int = 1) -> SceneSpec:
    """``faces`` = 20 * 4^n of an icosphere over 37 % of the image, from ``batch`` sides."""
    name = f"sphere {faces:,}, {size}x{size}" + (f", batch {batch}" if batch > 1 else "")
    return SceneSpec(name, size, _Sphere(faces, batch))


def modelled(size: int) -> SceneSpec:
    """A robot's body as it was designed: large flat faces, small round parts, much inside (source: docs/data.md)."""
    return SceneSpec(f"robot, {size}x{size}", size, _robot)


def soup(count: int, size: int) -> SceneSpec:
    """Large random triangles over each other in random order."""
    return SceneSpec(f"soup {count:,}, {size}x{size}", size, _Soup(count))


def slivers(count: int, size: int) -> SceneSpec:
    """Triangles as long as the image and about a pixel wide, in all directions."""
    return SceneSpec(f"slivers {count:,}, {size}x{size}", size, _Slivers(count, size))


@dataclasses.dataclass(frozen=True)
class _Sphere:
    faces: int
    batch: int

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        from dibr_deploy import mesh

        subdivisions = round(math.log(self.faces / 20, 4))
        ball = mesh.icosphere(subdivisions)
        distance = 3.2
        half_angle = math.atan(1 / math.sqrt(distance**2 - 1) / math.sqrt(FILL * 4 / math.pi))
        eyes = [_on_sphere(view, distance) for view in range(self.batch)]
        return _views(ball.vertices.double().numpy(), eyes, half_angle), ball.faces.int().numpy()


def _on_sphere(view: int, distance: float) -> tuple[float, float, float]:
    azimuth, elevation = 0.4 + 2.4 * view, 0.3 * math.cos(1.7 * view)
    ring = distance * math.cos(elevation)
    return ring * math.sin(azimuth), distance * math.sin(elevation), ring * math.cos(azimuth)


def _views(vertices: np.ndarray, eyes: list[tuple[float, float, float]], half_angle: float) -> np.ndarray:
    """Clip space [B, V, 4] of vertices [V, 3] from cameras that look at the origin."""
    import torch

    from dibr_deploy import cameras

    lens = cameras.perspective(torch.tensor(2 * half_angle, dtype=torch.float64), near=0.5, far=10.0)
    views = torch.stack([lens @ cameras.look_at(torch.tensor(eye, dtype=torch.float64)) for eye in eyes])
    return cameras.project(torch.from_numpy(vertices)[None], views).numpy()


def _robot() -> tuple[np.ndarray, np.ndarray]:
    from dibr_deploy import mesh
    from dibr_deploy.data import fetch

    body = mesh.read_mesh(fetch.package_data() / "a1/meshes/trunk.obj")
    vertices = body.vertices.double().numpy()
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / np.linalg.norm(high - low) * 2
    return _turned(_views(vertices, [_on_sphere(0, 3.2)], 0.3), body.faces.int().numpy())


@dataclasses.dataclass(frozen=True)
class _Soup:
    count: int

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        centre = random.uniform(-0.8, 0.8, (self.count, 1, 3))
        corners = centre + random.uniform(-0.35, 0.35, (self.count, 3, 3)) * [1, 1, 0.05]
        return _triangles(corners)


@dataclasses.dataclass(frozen=True)
class _Slivers:
    count: int
    size: int

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        angle = random.uniform(0, 2 * np.pi, self.count)
        along = np.stack([np.cos(angle), np.sin(angle)], -1)
        middle = random.uniform(-0.5, 0.5, (self.count, 2))
        across = np.stack([-along[:, 1], along[:, 0]], -1) * (2 / self.size)
        flat = np.stack([middle - 0.9 * along, middle + 0.9 * along, middle + across], 1)
        depth = np.broadcast_to(random.permutation(self.count)[:, None, None] / self.count, (self.count, 3, 1))
        return _triangles(np.concatenate([flat, 1.6 * depth - 0.8], -1))


def _triangles(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles [F, 3, 3] in NDC as positions with w = 1 and faces, none sharing a vertex."""
    positions = np.concatenate([corners, np.ones_like(corners[..., :1])], -1).reshape(1, -1, 4)
    return _turned(positions, np.arange(positions.shape[1], dtype=np.int32).reshape(-1, 3))


def _turned(positions: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with every face counter-clockwise in the first view."""
    corners = (positions[0, :, :2] / positions[0, :, 3:])[faces]
    along, across = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    clockwise = along[:, 0] * across[:, 1] < along[:, 1] * across[:, 0]
    return positions, np.ascontiguousarray(np.where(clockwise[:, None], faces[:, ::-1], faces))
