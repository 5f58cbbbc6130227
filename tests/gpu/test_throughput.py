"""How long each op takes on the device, beside the CPU backend and beside what other renderers are installed.

The table is printed and written to build/gpu_throughput.md. Nothing is asserted of the speed: devices differ."""

from __future__ import annotations

import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from oracle import scenes
from torch import Tensor

from dibr_deploy import ops

pytestmark = pytest.mark.gpu

TABLE = Path(__file__).resolve().parents[2] / "build" / "gpu_throughput.md"
BATCH, SIZE, SUBDIVISIONS = 4, 512, 5  # 20,480 faces
TEXTURE_SIZE = 1024


class Input(NamedTuple):
    positions: Tensor  # [B, V, 4]
    faces: Tensor  # [F, 3] int32
    uvs: Tensor  # [1, V, 2]
    texture: Tensor  # [1, 3, Ht, Wt]
    face_index: Tensor
    barycentrics: Tensor
    uv: Tensor  # [B, H, W, 2]
    image: Tensor  # [B, H, W, 3]


def make_input(device: str) -> Input:
    vertices, faces = scenes.icosphere(SUBDIVISIONS)
    matrix = scenes.perspective(45.0, 1.0, 0.1, 10.0)
    views = [vertices @ scenes.rotation(0.3 * i, 0).T - [0.0, 0.0, 3.4] for i in range(BATCH)]
    positions = torch.stack([torch.from_numpy(scenes.project(view, matrix)) for view in views]).float().to(device)
    triangles = torch.from_numpy(faces).to(device)
    uvs = torch.from_numpy(vertices[None, :, :2] * 0.5 + 0.5).float().to(device)
    texture = torch.rand(1, 3, TEXTURE_SIZE, TEXTURE_SIZE).to(device)
    raster = ops.rasterize(positions, triangles, SIZE, SIZE)
    uv = ops.interpolate(uvs, triangles, raster.face_index, raster.barycentrics)
    image = ops.texture(texture, uv)
    return Input(positions, triangles, uvs, texture, raster.face_index, raster.barycentrics, uv, image)


def forward_calls(x: Input) -> dict[str, Callable[[], Tensor]]:
    """Per op a function of nothing, whose result has a gradient where the input asks for one."""
    return {
        "rasterize": lambda: ops.rasterize(x.positions, x.faces, SIZE, SIZE).barycentrics,
        "interpolate": lambda: ops.interpolate(x.uvs, x.faces, x.face_index, x.barycentrics),
        "texture": lambda: ops.texture(x.texture, x.uv),
        "soft_mask": lambda: ops.soft_mask(x.positions, x.faces, x.face_index),
        "antialias": lambda: ops.antialias(x.image, x.positions, x.faces, x.face_index, x.barycentrics),
    }


def with_backward(forward: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], object]:
    weights = torch.rand_like(forward().detach())
    return lambda: torch.autograd.grad(forward(), leaves, weights, allow_unused=True)


def calls(x: Input) -> Iterator[tuple[str, Callable[[], object]]]:
    for op, forward in forward_calls(x).items():
        yield op, forward
    asking = x._replace(
        **{
            name: getattr(x, name).detach().clone().requires_grad_()
            for name in ("positions", "uvs", "texture", "barycentrics", "uv", "image")
        }
    )
    leaves = {
        "rasterize": [asking.positions],
        "interpolate": [asking.uvs, asking.barycentrics],
        "texture": [asking.texture, asking.uv],
        "soft_mask": [asking.positions],
        "antialias": [asking.image, asking.positions],
    }
    for op, forward in forward_calls(asking).items():
        yield f"{op}, forward and backward", with_backward(forward, leaves[op])


def milliseconds(call: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median of single calls, after three to warm up."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        if device == "cpu":
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        else:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def kaolin_calls(x: Input) -> dict[str, Callable[[], object]]:
    from kaolin.render.mesh import dibr_soft_mask, rasterize

    corners = x.positions[:, x.faces.long()]  # [B, F, 3, 4]
    image = (corners[..., :2] / corners[..., 3:]).contiguous()
    depth = (-corners[..., 3]).contiguous()  # camera z
    features = x.uvs.expand(BATCH, -1, -1)[:, x.faces.long()].contiguous()
    _, face_index = rasterize(SIZE, SIZE, depth, image, features, backend="cuda")
    return {
        "rasterize": lambda: rasterize(SIZE, SIZE, depth, image, features, backend="cuda"),
        "soft_mask": lambda: dibr_soft_mask(image, face_index),
    }


def nvdiffrast_calls(x: Input) -> dict[str, Callable[[], object]]:
    import nvdiffrast.torch as dr

    context = dr.RasterizeCudaContext(device="cuda")
    raster, _ = dr.rasterize(context, x.positions, x.faces, resolution=[SIZE, SIZE])
    uvs = x.uvs.expand(BATCH, -1, -1).contiguous()
    uv, _ = dr.interpolate(uvs, raster, x.faces)
    texture = x.texture.permute(0, 2, 3, 1).contiguous()
    return {
        "rasterize": lambda: dr.rasterize(context, x.positions, x.faces, resolution=[SIZE, SIZE]),
        "interpolate": lambda: dr.interpolate(uvs, raster, x.faces),
        "texture": lambda: dr.texture(texture, uv, filter_mode="linear", boundary_mode="clamp"),
    }


def pytorch3d_calls(x: Input) -> dict[str, Callable[[], object]]:
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    # Its screen has x to the left and y up, and z is the distance from the camera.
    ndc = x.positions[..., :2] / x.positions[..., 3:]
    vertices = torch.cat([-ndc[..., :1], ndc[..., 1:], x.positions[..., 3:]], dim=-1)
    meshes = Meshes(verts=list(vertices), faces=[x.faces.long()] * BATCH)
    return {"rasterize": lambda: rasterize_meshes(meshes, image_size=SIZE, blur_radius=0.0, faces_per_pixel=1)}


PEERS = {"kaolin": kaolin_calls, "nvdiffrast": nvdiffrast_calls, "pytorch3d": pytorch3d_calls}


def cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_table(rows: dict[str, dict[str, float]], columns: list[str]) -> str:
    header = f"{BATCH} images of {SIZE}x{SIZE}, {20 * 4**SUBDIVISIONS:,} faces, float32, milliseconds"
    lines = [f"{torch.cuda.get_device_name()}: {header}", "", "| op | " + " | ".join(columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for op, times in rows.items():
        lines.append(f"| {op} | " + " | ".join(cell(times.get(column)) for column in columns) + " |")
    text = "\n".join(lines) + "\n"
    TABLE.parent.mkdir(exist_ok=True)
    temporary = TABLE.with_name(f"{TABLE.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(TABLE)
    return text


def test_throughput_table(device: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    rows: dict[str, dict[str, float]] = {}
    on_device = make_input("cuda")
    for op, call in calls(on_device):
        rows[op] = {"CUDA": milliseconds(call, "cuda")}
    for op, call in calls(make_input("cpu")):
        rows[op]["CPU"] = milliseconds(call, "cpu", repeats=3)
    installed = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    for name in installed:
        for op, call in PEERS[name](on_device).items():
            rows[op][name] = milliseconds(call, "cuda")
    text = write_table(rows, ["CUDA", "CPU", *installed])
    with capsys.disabled():
        print(f"\n{text}")
    assert all(math.isfinite(value) and value > 0 for times in rows.values() for value in times.values())
