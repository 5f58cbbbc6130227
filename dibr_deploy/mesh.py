"""Triangle meshes: a container, templates, topology tables, normals, and files."""

from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DibrError
from .files import write_atomically
from .pictures import to_bytes

MESH_SUFFIXES = (".obj", ".ply", ".glb", ".gltf", ".stl", ".off")


@dataclasses.dataclass(frozen=True)
class Mesh:
    """One triangle mesh. Optional parts are None."""

    vertices: Tensor
    """[V, 3] float."""
    faces: Tensor
    """[F, 3] int64, counter-clockwise seen from outside."""
    uvs: Tensor | None = None
    """[Vt, 2] float, texture coordinates with v = 0 at the top row; outside 0..1 the texture repeats."""
    uv_faces: Tensor | None = None
    """[F, 3] int64, the corners of ``faces`` as indices into ``uvs``."""
    texture: Tensor | None = None
    """[3, Ht, Wt] float in 0..1, row 0 at v = 0."""
    vertex_colors: Tensor | None = None
    """[V, 3] float in 0..1."""

    def to(self, target: torch.device | str | torch.dtype) -> Mesh:
        """The same mesh on another device, or with its float tensors in another dtype."""
        moved: dict[str, Tensor] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and (value.is_floating_point() or not isinstance(target, torch.dtype)):
                moved[field.name] = value.to(target)
        return dataclasses.replace(self, **moved)


def icosphere(subdivisions: int = 3, radius: float = 1.0) -> Mesh:
    """A sphere from a subdivided icosahedron that stands on a vertex: 10 * 4**subdivisions + 2 vertices, UVs included.

    Three subdivisions give 642 vertices and 1,280 faces. The poles are vertices at every level.
    """
    if subdivisions < 0:
        raise DibrError(f"subdivisions must be at least 0, but is {subdivisions}")
    vertices, faces = _icosahedron()
    for _ in range(subdivisions):
        vertices, faces = _subdivide_on_sphere(vertices, faces)
    return _with_spherical_uvs(vertices, faces, radius)


def uv_sphere(rings: int = 16, segments: int = 32, radius: float = 1.0) -> Mesh:
    """A sphere of ``rings`` bands of latitude and ``segments`` of longitude, UVs included.

    It has 2 + (rings - 1) * segments vertices and 2 * segments * (rings - 1) faces; each pole is one vertex.
    """
    if rings < 2 or segments < 3:
        raise DibrError(f"uv_sphere needs rings >= 2 and segments >= 3, but got {rings} and {segments}")
    polar = np.pi * np.arange(1, rings) / rings
    azimuth = 2 * np.pi * np.arange(segments) / segments
    polar, azimuth = (grid.ravel() for grid in np.meshgrid(polar, azimuth, indexing="ij"))
    body = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], axis=-1)
    vertices = np.concatenate([[[0.0, 1.0, 0.0]], body, [[0.0, -1.0, 0.0]]])

    ring = 1 + np.arange((rings - 1) * segments).reshape(rings - 1, segments)
    following = np.roll(ring, -1, axis=1)
    north, south = np.zeros(segments, dtype=int), np.full(segments, len(vertices) - 1)
    upper = np.stack([ring[:-1], ring[1:], following[:-1]], axis=-1).reshape(-1, 3)
    lower = np.stack([following[:-1], ring[1:], following[1:]], axis=-1).reshape(-1, 3)
    top = np.stack([north, ring[0], following[0]], axis=-1)
    bottom = np.stack([south, following[-1], ring[-1]], axis=-1)
    return _with_spherical_uvs(vertices, np.concatenate([top, upper, lower, bottom]), radius)


def spherical_uvs(vertices: np.ndarray, faces: np.ndarray, *, inset: float = 1 / 64) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude as texture coordinates, with an index of their own, right at the seam and the poles.

    u = (longitude / 2 pi) mod 1 with longitude measured from +z towards +x; v runs from ``inset`` at +y to
    1 - ``inset`` at -y, so that bilinear sampling of a repeating texture of at least 1 / (2 inset) rows never
    reaches across a pole.
    A face that crosses the seam has u > 1 at the corners beyond it; a corner at a pole takes the mean u of its face's
    other two corners.

    Args:
        vertices: [V, 3] around the origin; faces: [F, 3]. A pole may be a vertex, but not inside a face.

    Returns:
        uvs [Vt, 2] float64 and uv_faces [F, 3] int64; corners of one vertex share an entry where their uv agrees.
    """
    x, y, z = (vertices / np.linalg.norm(vertices, axis=-1, keepdims=True)).T
    u = np.mod(np.arctan2(x, z) / (2 * np.pi), 1.0)
    v = inset + (1 - 2 * inset) * np.arccos(np.clip(y, -1, 1)) / np.pi
    at_pole = (np.hypot(x, z) < 1e-9)[faces]

    corner_u = np.where(at_pole, np.nan, u[faces])
    crosses_seam = np.nanmax(corner_u, axis=1) - np.nanmin(corner_u, axis=1) > 0.5
    corner_u += crosses_seam[:, None] & (corner_u < 0.5)
    corner_u = np.where(at_pole, np.nanmean(corner_u, axis=1, keepdims=True), corner_u)

    keys = np.stack([faces.ravel(), np.round(corner_u.ravel() * 2**40)], axis=-1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    uvs = np.stack([corner_u.ravel(), v[faces].ravel()], axis=-1)[first]
    return uvs, inverse.reshape(faces.shape)


def normalize(vertices: Tensor) -> Tensor:
    """Moves the bounding box's centre to the origin and scales so that the farthest vertex is at distance 1, [V, 3].

    Raises DibrError where there is no extent: no finite vertex, or all in one point.
    """
    if len(vertices) == 0 or not bool(torch.isfinite(vertices).all()):
        raise DibrError("normalize: vertices must be finite and at least one")
    centred = vertices - (vertices.amin(dim=0) + vertices.amax(dim=0)) / 2
    radius = torch.linalg.vector_norm(centred, dim=-1).max()
    if float(radius) == 0:
        raise DibrError("normalize: all vertices are in one point")
    return centred / radius


def unit(vectors: Tensor) -> Tensor:
    """Vectors [..., 3] at length 1; those shorter than 1e-12 are divided by it, with the gradient 0: 0 stays 0."""
    length = vectors.norm(dim=-1, keepdim=True)
    if vectors.requires_grad and not torch.compiler.is_exporting():
        vectors = torch.where(length < 1e-12, vectors.detach(), vectors)
    return vectors / length.clamp_min(1e-12).expand_as(vectors)


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Cross products of the faces' edges: vertices [B, V, 3], faces [F, 3] -> [B, F, 3]; length = twice the area."""
    a, b, c = (vertices.index_select(1, faces[:, corner]) for corner in range(3))
    return torch.linalg.cross(b - a, c - a, dim=-1)


def vertex_normals(
    vertices: Tensor, faces: Tensor, vertex_faces: Tensor | None = None, face_valid: Tensor | None = None
) -> Tensor:
    """Unit normals at vertices, the area-weighted mean of the faces around each.

    Args:
        vertices: [B, V, 3]; faces: [F, 3].
        vertex_faces: ``vertex_face_table(faces, V)``; with it the faces are gathered and not scattered.
        face_valid: [B, F] bool; False takes a face out of one mesh.

    Returns:
        [B, V, 3]; zero at a vertex without faces of positive area. Differentiable in vertices. A face with a vertex
        that is not finite counts as absent.
    """
    finite = (vertices * 0 == 0).all(dim=-1, keepdim=True)
    normals = face_normals(torch.where(finite, vertices, 0.0), faces)
    for corner in range(3):
        normals = normals * finite.to(vertices.dtype).index_select(1, faces[:, corner])
    if face_valid is not None:
        normals = normals * face_valid.unsqueeze(-1)
    if vertex_faces is None:
        total = torch.zeros_like(vertices).index_add(1, faces.T.reshape(-1), normals.repeat(1, 3, 1))
    else:
        padded = F.pad(normals, (0, 0, 0, 1))
        total = padded.index_select(1, vertex_faces.reshape(-1)).unflatten(1, tuple(vertex_faces.shape)).sum(dim=2)
    return unit(total)


def vertex_face_table(faces: Tensor, vertex_count: int) -> Tensor:
    """The faces around every vertex, [V, D] int64 with D the largest number of them, padded with F."""
    corners = faces.reshape(-1).long()
    counts = torch.bincount(corners, minlength=vertex_count)
    order = torch.argsort(corners, stable=True)
    slot = torch.arange(len(corners), device=faces.device) - (counts.cumsum(0) - counts)[corners[order]]
    most = int(counts.max()) if len(corners) else 0
    table = torch.full((vertex_count, most), len(faces), dtype=torch.int64, device=faces.device)
    table[corners[order], slot] = order // 3
    return table


def unique_edges(faces: Tensor) -> Tensor:
    """Every edge once, [E, 2] int64, the smaller vertex first, in ascending order."""
    return torch.unique(_sorted_edges(faces), dim=0)


def edge_faces(faces: Tensor) -> Tensor:
    """The two faces at every edge that has exactly two, [E, 2] int64."""
    _, inverse, counts = torch.unique(_sorted_edges(faces), dim=0, return_inverse=True, return_counts=True)
    face_of_corner = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    face_of_edge = face_of_corner[torch.argsort(inverse, stable=True)]
    inside = counts == 2
    first = (counts.cumsum(0) - counts)[inside]
    return torch.stack([face_of_edge[first], face_of_edge[first + 1]], dim=-1)


def read_mesh(path: str | Path) -> Mesh:
    """Reads an OBJ, PLY, GLB, glTF, STL or OFF file; a scene's parts become one mesh.

    Vertices at the same place (and of the same colour) become one, so that normals are smooth across texture seams;
    texture coordinates keep the file's index. A file without texture or colours gives neither. An OBJ file that was
    cut between two lines of faces cannot be told from a whole one.

    Raises:
        DibrError: the file is missing, of an unknown kind, cut off, not a mesh, or has no faces.
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise DibrError(f"mesh file {path} must end in one of {', '.join(MESH_SUFFIXES)}")
    if not path.is_file():
        raise DibrError(f"mesh file {path} does not exist")
    _check_complete(path)
    import trimesh

    try:
        loaded = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # trimesh lets whatever its parsers trip over through
        raise DibrError(f"mesh file {path} is cut off, damaged or not a {path.suffix} file ({error})") from error
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.faces) == 0:
        raise DibrError(f"mesh file {path} has no faces")
    if not np.isfinite(loaded.vertices).all():
        raise DibrError(f"mesh file {path} has vertices that are not finite")
    if loaded.faces.min() < 0 or loaded.faces.max() >= len(loaded.vertices):
        raise DibrError(f"mesh file {path} is cut off or damaged: it has faces of vertices that are not there")
    return _from_trimesh(loaded)


def write_mesh(mesh: Mesh, path: str | Path) -> None:
    """Writes an OBJ, PLY, GLB, STL or OFF file, atomically. GLB alone carries a texture; PLY and GLB carry colours.

    Raises:
        DibrError: the suffix is unknown, the folder does not exist, or the mesh's tensors do not fit together.
    """
    path = Path(path)
    _check_shapes(mesh)
    if path.suffix.lower() not in MESH_SUFFIXES or path.suffix.lower() == ".gltf":
        known = ", ".join(suffix for suffix in MESH_SUFFIXES if suffix != ".gltf")
        raise DibrError(f"mesh file {path} must end in one of {known} to be written")
    if not path.parent.is_dir():
        raise DibrError(f"mesh file {path} cannot be written: folder {path.parent} does not exist")
    content = _to_trimesh(mesh).export(file_type=path.suffix.lower()[1:])
    write_atomically(path, content.encode() if isinstance(content, str) else content)


def _icosahedron() -> tuple[np.ndarray, np.ndarray]:
    """An icosahedron with a vertex at +y and one at -y."""
    height, width = 1 / math.sqrt(5), 2 / math.sqrt(5)
    turns = 2 * np.pi * np.arange(5) / 5
    upper = np.stack([width * np.sin(turns), np.full(5, height), width * np.cos(turns)], axis=-1)
    turns = turns + np.pi / 5
    lower = np.stack([width * np.sin(turns), np.full(5, -height), width * np.cos(turns)], axis=-1)
    vertices = np.concatenate([[[0.0, 1.0, 0.0]], upper, lower, [[0.0, -1.0, 0.0]]])
    faces = []
    for i in range(5):
        j = (i + 1) % 5
        up, next_up, low, next_low = 1 + i, 1 + j, 6 + i, 6 + j
        faces += [[0, up, next_up], [up, low, next_up], [next_up, low, next_low], [11, next_low, low]]
    return vertices, np.array(faces)


def _subdivide_on_sphere(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every face into four; the new vertices are the edges' midpoints, pushed out to the unit sphere."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, inverse = np.unique(edges, axis=0, return_inverse=True)
    middles = vertices[edges].mean(axis=1)
    middles /= np.linalg.norm(middles, axis=-1, keepdims=True)
    ab, bc, ca = (len(vertices) + inverse.reshape(-1, 3)).T
    a, b, c = faces.T
    children = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=-1)
    return np.concatenate([vertices, middles]), children.reshape(-1, 3)


def _with_spherical_uvs(vertices: np.ndarray, faces: np.ndarray, radius: float) -> Mesh:
    uvs, uv_faces = spherical_uvs(vertices, faces)
    dtype = torch.get_default_dtype()
    return Mesh(
        vertices=torch.from_numpy(vertices * radius).to(dtype),
        faces=torch.from_numpy(faces).long(),
        uvs=torch.from_numpy(uvs).to(dtype),
        uv_faces=torch.from_numpy(uv_faces).long(),
    )


def _sorted_edges(faces: Tensor) -> Tensor:
    """The three edges of every face, [F * 3, 2], the smaller vertex first."""
    return faces.long()[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(dim=-1).values


def _from_trimesh(loaded: Any) -> Mesh:
    vertices = np.asarray(loaded.vertices, dtype=np.float64)
    faces = np.asarray(loaded.faces, dtype=np.int64)
    uvs, texture, colors = _appearance(loaded)
    key = vertices if colors is None else np.concatenate([vertices, colors], axis=1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # keeps the file's order
    kept = np.sort(first)
    return Mesh(
        vertices=torch.from_numpy(vertices[kept]).float(),
        faces=torch.from_numpy(rank[inverse.reshape(-1)][faces]),
        uvs=None if uvs is None else torch.from_numpy(uvs).float(),
        uv_faces=None if uvs is None else torch.from_numpy(faces),
        texture=texture,
        vertex_colors=None if colors is None else torch.from_numpy(colors[kept]).float(),
    )


def _appearance(loaded: Any) -> tuple[np.ndarray | None, Tensor | None, np.ndarray | None]:
    """uvs [V, 2] with v = 0 at the top, texture, vertex colours [V, 3]: the first two or the last, or none of them."""
    visual = loaded.visual
    if not visual.defined:
        return None, None, None
    if visual.kind != "texture":
        return None, None, np.asarray(visual.vertex_colors, dtype=np.float64)[:, :3] / 255
    image = getattr(visual.material, "image", None) or getattr(visual.material, "baseColorTexture", None)
    if image is None or visual.uv is None:
        color = np.asarray(visual.material.main_color, dtype=np.float64)[:3] / 255
        return None, None, np.tile(color, (len(loaded.vertices), 1))
    uvs = np.asarray(visual.uv, dtype=np.float64) * [1, -1] + [0, 1]
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return uvs, torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), None


def _check_shapes(mesh: Mesh) -> None:
    """Raises where the tensors have other shapes than ``Mesh`` says, or than each other."""
    vertices, faces = len(mesh.vertices), len(mesh.faces)
    expected = {
        "vertices": (mesh.vertices, (vertices, 3)),
        "faces": (mesh.faces, (faces, 3)),
        "uvs": (mesh.uvs, (None, 2)),
        "uv_faces": (mesh.uv_faces, (faces, 3)),
        "texture": (mesh.texture, (3, None, None)),
        "vertex_colors": (mesh.vertex_colors, (vertices, 3)),
    }
    for name, (value, shape) in expected.items():
        if value is None:
            continue
        fits = value.dim() == len(shape) and all(b in (None, a) for a, b in zip(value.shape, shape, strict=True))
        if not fits:
            described = ", ".join("any" if size is None else str(size) for size in shape)
            raise DibrError(f"the mesh's {name} must have shape [{described}], but has {list(value.shape)}")


def _to_trimesh(mesh: Mesh) -> Any:
    import trimesh
    from PIL import Image

    vertices, faces = mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy()
    if mesh.texture is None or mesh.uvs is None or mesh.uv_faces is None:
        colors = None if mesh.vertex_colors is None else to_bytes(mesh.vertex_colors)
        return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)
    pairs = np.stack([faces.ravel(), mesh.uv_faces.cpu().numpy().ravel()], axis=-1)
    pairs, inverse = np.unique(pairs, axis=0, return_inverse=True)
    uvs = mesh.uvs.detach().cpu().numpy()[pairs[:, 1]] * [1, -1] + [0, 1]
    image = Image.fromarray(to_bytes(mesh.texture.permute(1, 2, 0)))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0)
    visual = trimesh.visual.TextureVisuals(uv=uvs, material=material)
    return trimesh.Trimesh(vertices[pairs[:, 0]], inverse.reshape(-1, 3), visual=visual, process=False)


def _check_complete(path: Path) -> None:
    """Raises where the file's own counts say that its end is missing; trimesh would return the part that is there."""
    content = path.read_bytes()
    if not content.strip():
        raise DibrError(f"mesh file {path} is empty")
    check = {".ply": _ply_is_complete, ".stl": _stl_is_complete, ".off": _off_is_complete, ".obj": _obj_is_complete}
    if not check.get(path.suffix.lower(), lambda content: True)(content):
        raise DibrError(f"mesh file {path} is cut off: it holds less than it announces")


def _ply_is_complete(content: bytes) -> bool:
    header, _, body = content.partition(b"end_header")
    if not body:
        return False
    if b"format ascii" not in header:
        return True  # trimesh compares the length of a binary file
    announced = sum(int(line.split()[2]) for line in header.splitlines() if line.startswith(b"element "))
    return len([line for line in body.splitlines() if line.strip()]) >= announced


def _stl_is_complete(content: bytes) -> bool:
    if len(content) >= 84 and len(content) == 84 + 50 * struct.unpack_from("<I", content, 80)[0]:
        return True
    return content.startswith(b"solid") and content.rstrip().splitlines()[-1].lstrip().startswith(b"endsolid")


def _off_is_complete(content: bytes) -> bool:
    words = [line.split(b"#")[0].split() for line in content.splitlines()]
    lines = [line for line in words if line]
    counts = lines[0][1:] or (lines[1] if len(lines) > 1 else [])
    first = 1 if lines[0][1:] else 2
    return len(counts) >= 2 and len(lines) - first >= int(counts[0]) + int(counts[1])


def _obj_is_complete(content: bytes) -> bool:
    last = content.rstrip().splitlines()[-1].split()
    return len(last) >= {b"f": 4, b"v": 4, b"vn": 4, b"vt": 3}.get(last[0], 1)
