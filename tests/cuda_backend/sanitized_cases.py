"""A small round through every kernel, in a process of its own so that a sanitizer's runtime can be loaded first.

    python -m cuda_backend.sanitized_cases libdibr.so [all | out_of_bounds | race]

Every output and workspace is its own malloc of exactly the size that the ABI asks for. The last two plant a fault in
the call. torch is not imported: its libraries would make the sanitizers slow."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from oracle import scenes
from oracle.scenes import Scene

from cuda_backend import abi, ops
from cuda_backend.abi import CPU, CUDA, DTYPES, Library
from cuda_backend.ops import Device, bfloat16_bits

_malloc = ctypes.CDLL(None).malloc
_malloc.restype, _malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)


def exact(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """A malloc of exactly this size, full of a poison; never freed."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(_malloc(max(size, 1))))
    raw[:] = 0xCD
    return raw.view(dtype).reshape(shape)


def copied(array: np.ndarray) -> np.ndarray:
    copy = exact(array.shape, array.dtype)
    copy[...] = array
    return copy


def soup(faces: int, size: tuple[int, int], dtype: type) -> Scene:
    """Random triangles over two images, of different w; one face names a vertex that does not exist."""
    meshes = [scenes.soup(seed, faces, 0.4) for seed in range(2)]
    positions = np.stack([scenes.homogeneous(vertices) for vertices, _ in meshes])
    positions *= np.random.default_rng(faces).uniform(0.5, 2.0, positions.shape[1])[None, :, None]
    indices = meshes[0][1].astype(np.int32)
    if faces > 1:
        indices[1, 2] = 2**30
    ranges = np.array([[0, faces], [faces // 2, faces - faces // 2]], np.int32)
    valid = np.arange(2 * faces).reshape(2, faces) % 7 != 3
    return Scene("soup", positions.astype(dtype), indices, *size, face_ranges=ranges, face_valid=valid)


def stack(count: int) -> Scene:
    """Faces over every tile, more than the lists have room for."""
    corners = np.array([[-1.5, -1.2, 0.1], [1.5, -1.1, 0.2], [0.0, 1.9, 0.3]])
    points = scenes.homogeneous(np.tile(corners, (count, 1)))[None].astype(np.float32)
    return Scene("stack", points, np.arange(3 * count, dtype=np.int32).reshape(count, 3), 33, 33)


def normal(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    return copied(np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype))


def mesh_ops(device: Device, scene: Scene) -> None:
    face_index, barycentrics, depth = device.rasterize(scene)
    real = depth.dtype
    assert scene.faces.shape[0] < 33 or (face_index >= 0).any()
    device.rasterize_backward(scene, face_index, normal(barycentrics.shape, real), normal(depth.shape, real))
    options = {"sigmainv": 300.0, "boxlen": 0.1, "knum": 5}
    device.soft_mask(scene, face_index, **options)
    device.soft_mask_backward(scene, face_index, normal(depth.shape, real), **options)
    attributes = normal((scene.positions.shape[0], scene.positions.shape[1], 3), real)
    output = device.interpolate(attributes, scene.faces, face_index, barycentrics)
    device.interpolate_backward(attributes, scene.faces, face_index, barycentrics, normal(output.shape, real))
    device.interpolate_raster_backward(attributes, scene, face_index, barycentrics, normal(output.shape, real))
    if real == np.float32:
        for narrow in (attributes.astype(np.float16), bfloat16_bits(attributes)):
            device.interpolate(copied(narrow), scene.faces, face_index, barycentrics)
    image = normal((*face_index.shape, 3), real)
    device.antialias(scene, image, face_index, barycentrics)
    device.antialias_backward(scene, image, face_index, barycentrics, normal(image.shape, real))
    if real == np.float32:
        device.antialias(scene, copied(image.astype(np.float16)), face_index, barycentrics)
    texture, uvs = normal((1, 3, 5, 7), real), normal((1, scene.positions.shape[1], 2), real)
    arguments = {"uvs": uvs, "uv_faces": scene.faces, "texture": texture, "wrap": 1}
    device.render(scene, abi.RENDER_OUTPUTS, **arguments, attributes=[(attributes, scene.faces)] * 3, **options)
    if real == np.float32:
        narrow = copied(texture.astype(np.float16)), copied(bfloat16_bits(attributes))
        arguments |= {"texture": narrow[0], "attributes": [(narrow[1], scene.faces)]}
        device.render(scene, ("color",), **arguments)


def texture_ops(device: Device, dtype: type) -> None:
    uv = copied(np.random.default_rng(1).uniform(-1.5, 2.5, (2, 9, 31, 2)).astype(dtype))
    uv[0, 0, :3] = np.array([[np.nan, 0.5], [0.5, np.inf], [1e30, -1e30]])
    texture = normal((1, 3, 5, 7), dtype)
    for filter in (0, 1):
        for wrap in (0, 1, 2):
            output = device.texture(texture, uv, filter, wrap)
            device.texture_backward(texture, uv, normal(output.shape, dtype), filter, wrap)
    levels = copied(np.random.default_rng(2).uniform(-1, 4, uv.shape[:3]).astype(dtype))
    levels[0, 0, 3:6] = [np.nan, np.inf, -np.inf]
    output = device.texture(texture, uv, 2, 2, levels)
    device.texture_backward(texture, uv, normal(output.shape, dtype), 2, 2, levels)
    if dtype is np.float32:
        for narrow in (texture.astype(np.float16), bfloat16_bits(texture)):
            device.texture(copied(narrow), uv, 1, 1)
            device.texture(copied(narrow), uv, 2, 1, levels)


def run_all(library: Library, small: bool) -> Iterator[str]:
    sizes = [(33, (15, 33))] if small else [(0, (1, 1)), (1, (1, 1)), (33, (15, 33)), (257, (33, 47))]
    for deterministic in (False, True):
        device = Device(library, CUDA, deterministic)
        for dtype in (np.float32, np.float64):
            for faces, size in sizes:
                mesh_ops(device, soup(faces, size, dtype))
            texture_ops(device, dtype)
            yield f"{np.dtype(dtype).name}, deterministic {deterministic}"
    if not small:
        mesh_ops(Device(library, CUDA), stack(4200))
        yield "a tile whose list overflows"


def plant(library: Library, fault: str) -> None:
    """rasterize with a depth output that is a pixel too short, or that lies over face_index, shifted by a pixel."""
    scene = soup(33, (32, 32), np.float32)
    scene = Scene("sound", scene.positions, np.where(scene.faces == 2**30, 0, scene.faces), 32, 32)
    pixels = scene.positions.shape[0] * 32 * 32
    face_index, barycentrics = exact((pixels + 1,), np.int32), exact((3 * pixels,), np.float32)
    depth = exact((pixels - 1,), np.float32) if fault == "out_of_bounds" else face_index[1:]
    library.run(
        "rasterize",
        CUDA,
        DTYPES[np.dtype(np.float32)],
        **Device(library, CPU)._mesh(scene),
        face_index=face_index,
        barycentrics=barycentrics,
        depth=depth,
    )


def main() -> None:
    library = Library(Path(sys.argv[1]))
    abi.aligned = ops.aligned = exact
    if sys.argv[2] != "all":
        return plant(library, sys.argv[2])
    for done in run_all(library, small="CUDA_ON_HOST_WORKERS" in os.environ):
        print(done, flush=True)


if __name__ == "__main__":
    main()
