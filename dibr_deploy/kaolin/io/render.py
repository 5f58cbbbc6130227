"""As ``kaolin.io.render``: views that Omniverse Kaolin's data generator has written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..render.camera import generate_perspective_projection

_PICTURES = ("rgb", "normals")


def import_synthetic_view(
    root_dir: str | Path,
    idx: int,
    rgb: bool = True,
    depth_linear: bool = False,
    semantic: bool = False,
    instance: bool = False,
    normals: bool = False,
    bbox_2d_tight: bool = False,
    bbox_2d_loose: bool = False,
) -> dict[str, Any]:
    """One view out of a folder of ``{idx}_rgb.png``, ``{idx}_semantic.npy``, ..., ``{idx}_metadata.json``.

    Args:
        root_dir: the folder.
        idx: which view.
        rgb, depth_linear, semantic, instance, normals, bbox_2d_tight, bbox_2d_loose: what to read.

    Returns:
        What was asked for by these names: pictures as float [H, W, 3] in 0..1, arrays as they are, None where there is
        no file; boxes as the metadata file has them; and ``metadata`` with cam_transform [4, 3], cam_proj [3, 1],
        asset_transforms [4, 4] and clipping_range. The angle of view is taken across the aperture, and then as the
        vertical one, as kaolin does: it is right for square images.

    Raises:
        FileNotFoundError: no metadata.
    """
    folder = Path(root_dir)
    asked = {"rgb": rgb, "depth_linear": depth_linear, "semantic": semantic, "instance": instance, "normals": normals}
    view: dict[str, Any] = {}
    for name in (name for name, wanted in asked.items() if wanted):
        file = folder / f"{idx}_{name}.{'png' if name in _PICTURES else 'npy'}"
        view[name] = None
        if file.is_file() and name in _PICTURES:
            view[name] = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).float() / 255
        elif file.is_file():
            view[name] = torch.from_numpy(np.load(file))
    metadata = json.loads((folder / f"{idx}_metadata.json").read_text())
    camera = metadata["camera_properties"]
    angle = 2 * math.atan(camera["horizontal_aperture"] / (2 * camera["focal_length"]))
    size = camera["resolution"]
    view["metadata"] = {
        "cam_transform": torch.tensor(camera["tf_mat"], dtype=torch.float32)[:, :3],
        "asset_transforms": torch.tensor(metadata["asset_transforms"][0][1], dtype=torch.float32),
        "cam_proj": generate_perspective_projection(angle, size["width"] / size["height"]),
        "clipping_range": camera["clipping_range"],
    }
    boxes = {"bbox_2d_tight": bbox_2d_tight, "bbox_2d_loose": bbox_2d_loose}
    return view | {name: metadata[name] for name, wanted in boxes.items() if wanted}
