"""Small renderers through the torch and ONNX Runtime doors, fixed input: `python door_programs.py PROGRAM RESULT`.

What has 16-bit storage is returned as float32, which holds it exactly, and named after the type."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

HEIGHT, WIDTH, CHANNELS = 33, 40, 3
SIXTEEN_BIT = ("float16", "bfloat16")


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    positions = rng.uniform(-0.9, 0.9, (2, 30, 4)).astype(np.float32)
    positions[..., 3] = rng.uniform(1.0, 1.5, (2, 30))
    return {
        "positions": positions,
        "faces": rng.permutation(30).reshape(10, 3).astype(np.int32),
        "uvs": rng.uniform(0, 1, (1, 30, 2)).astype(np.float32),
        "texture": rng.uniform(0, 1, (2, CHANNELS, 6, 5)).astype(np.float32),
    }


def run_torch() -> dict[str, np.ndarray]:
    import torch

    from dibr_deploy import ops

    values = {name: torch.from_numpy(array) for name, array in inputs().items()}
    leaves = [values[name].requires_grad_() for name in ("positions", "uvs", "texture")]
    raster = ops.rasterize(values["positions"], values["faces"], HEIGHT, WIDTH)
    uv = ops.interpolate(values["uvs"], values["faces"], raster.face_index, raster.barycentrics)
    image = ops.texture(values["texture"], uv)
    mask = ops.soft_mask(values["positions"], values["faces"], raster.face_index, sigmainv=500.0, boxlen=0.1)
    smooth = ops.antialias(image, values["positions"], values["faces"], raster.face_index, raster.barycentrics)
    gradients = torch.autograd.grad((smooth**2).sum() + mask.sum() + raster.depth.sum(), leaves)
    results = {"face_index": raster.face_index, "depth": raster.depth, "image": image, "mask": mask, "smooth": smooth}
    results |= {f"gradient_{i}": gradient for i, gradient in enumerate(gradients)}
    with torch.no_grad():
        for name in SIXTEEN_BIT:
            dtype = getattr(torch, name)
            uv_16 = ops.interpolate(values["uvs"].to(dtype), values["faces"], raster.face_index, raster.barycentrics)
            image_16 = ops.texture(values["texture"].to(dtype), uv.detach())
            smooth_16 = ops.antialias(
                image_16, values["positions"], values["faces"], raster.face_index, raster.barycentrics
            )
            assert uv_16.dtype == image_16.dtype == smooth_16.dtype == dtype
            results |= {f"uv_{name}": uv_16.float(), f"image_{name}": image_16.float()}
            results |= {f"smooth_{name}": smooth_16.float()}
    return {name: value.detach().numpy() for name, value in results.items()}


def run_torch_deterministic() -> dict[str, np.ndarray]:
    import torch

    torch.use_deterministic_algorithms(True)
    try:
        return run_torch()
    finally:
        torch.use_deterministic_algorithms(False)


def run_onnxruntime() -> dict[str, np.ndarray]:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    from dibr_deploy._native import library_path

    def node(op: str, names: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
        return helper.make_node(op, names, outputs, domain="ai.dibr", **attributes)

    arrays = inputs()
    outputs = {
        "face_index": TensorProto.INT32,
        "depth": TensorProto.FLOAT,
        "image": TensorProto.FLOAT,
        "mask": TensorProto.FLOAT,
        "smooth": TensorProto.FLOAT,
    }
    shown = ["positions", "faces", "face_index", "barycentrics"]
    nodes_16 = []
    for name in SIXTEEN_BIT:
        kind = TensorProto.DataType.Value(name.upper())
        nodes_16 += [
            helper.make_node("Cast", ["uvs"], [f"{name}_uvs"], to=kind),
            helper.make_node("Cast", ["texture"], [f"{name}_texture"], to=kind),
            node("Interpolate", [f"{name}_uvs", "faces", "face_index", "barycentrics"], [f"{name}_uv"]),
            node("Texture", [f"{name}_texture", "uv"], [f"{name}_image"]),
            node("Antialias", [f"{name}_image", *shown], [f"{name}_smooth"]),
            helper.make_node("Cast", [f"{name}_uv"], [f"uv_{name}"], to=TensorProto.FLOAT),
            helper.make_node("Cast", [f"{name}_image"], [f"image_{name}"], to=TensorProto.FLOAT),
            helper.make_node("Cast", [f"{name}_smooth"], [f"smooth_{name}"], to=TensorProto.FLOAT),
        ]
        outputs |= {f"{stem}_{name}": TensorProto.FLOAT for stem in ("uv", "image", "smooth")}
    graph = helper.make_graph(
        [
            node(
                "Rasterize", ["positions", "faces"], ["face_index", "barycentrics", "depth"], height=HEIGHT, width=WIDTH
            ),
            node("Interpolate", ["uvs", "faces", "face_index", "barycentrics"], ["uv"]),
            node("Texture", ["texture", "uv"], ["image"]),
            node("Antialias", ["image", *shown], ["smooth"]),
            node("SoftMask", ["positions", "faces", "face_index"], ["mask"], sigmainv=500.0, boxlen=0.1),
            *nodes_16,
        ],
        "renderer",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in arrays.items()
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.dibr", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library_path("libdibr_onnxruntime.so")))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(list(outputs), arrays), strict=True))


PROGRAMS = {"torch": run_torch, "torch_deterministic": run_torch_deterministic, "onnxruntime": run_onnxruntime}


def main(program: str, result: str) -> None:
    arrays = PROGRAMS[program]()
    if program.startswith("torch"):
        import ctypes

        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_char_p
        arrays["stream_asked"] = np.array(getenv(b"DIBR_TEST_STREAM_ASKED") == b"1")
    np.savez(Path(result), **arrays)


if __name__ == "__main__":
    sys.path = [folder for folder in sys.path if folder != os.path.dirname(__file__)]
    main(*sys.argv[1:])
