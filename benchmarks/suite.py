"""Which scenes are drawn, by whom, and for how long: the full benchmark, a quick one, and one for the tests."""

from __future__ import annotations

import dataclasses

from . import scenes
from .machine import cores
from .scenes import SceneSpec

SPINNING = "ours, spinning"
OURS = ("ours", SPINNING)
RASTERIZERS = ("ours", "llvmpipe", "DEODR", "Embree")
COMPARED = (*OURS, *RASTERIZERS[1:])
OPS = (
    "rasterize",
    "backward",
    "interpolate",
    "soft_mask",
    "soft_mask_backward",
    "texture",
    "texture_backward",
    "render",
    "render_backward",
)
SWEPT = ("rasterize", "backward", "soft_mask_backward")
OF_ALL_FACES = "rasterize_all_faces"
CHAINS = ("chain", "fused_chain")
MODEL = ("model", "predictor", *CHAINS)

COMPARED_FACES = (1280, 20480, 81920)
ALL_FACES = (1280, 5120, 20480, 81920, 327680, 1310720)
ALL_SIZES = (64, 128, 256, 512, 1024, 2048)
MIDDLE_FACES, MIDDLE_SIZE = 20480, 512
MODEL_SCENE = scenes.sphere(1280, 256)
LARGER_CHAINS = (scenes.sphere(MIDDLE_FACES, 256), scenes.sphere(81920, MIDDLE_SIZE))
LARGEST = scenes.sphere(1310720, 2048)


@dataclasses.dataclass(frozen=True)
class Case:
    """One scene: who does what on it."""

    spec: SceneSpec
    peers: tuple[str, ...] = RASTERIZERS
    tasks: tuple[str, ...] = SWEPT
    all_threads: bool = False
    """Ours with every power of two as number of threads, and not with one and all alone."""


@dataclasses.dataclass(frozen=True)
class Suite:
    """A run."""

    cases: tuple[Case, ...]
    peaks: tuple[Case, ...]
    """Whose memory is measured, on one thread."""
    rounds: int
    seconds: float
    """For each task of each peer in each round."""


def thread_counts() -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    powers = [1 << k for k in range(cores().bit_length())]
    return sorted({*(power for power in powers if power <= cores()), cores()})


def full() -> Suite:
    compared = [
        Case(
            scenes.sphere(faces, MIDDLE_SIZE),
            (*COMPARED, "torch", *(["PyTorch3D"] if faces == COMPARED_FACES[0] else [])),
            (*OPS, OF_ALL_FACES),
            all_threads=True,
        )
        for faces in COMPARED_FACES
    ]
    others = [faces for faces in ALL_FACES if faces not in COMPARED_FACES]
    sizes = [size for size in ALL_SIZES if size != MIDDLE_SIZE]
    cases = [
        *compared,
        *(Case(scenes.sphere(faces, MIDDLE_SIZE)) for faces in others),
        *(Case(scenes.sphere(MIDDLE_FACES, size), tasks=OPS) for size in sizes),
        *(
            Case(scenes.sphere(faces, MIDDLE_SIZE, batch=8), COMPARED, ("rasterize",), all_threads=True)
            for faces in COMPARED_FACES
        ),
        Case(scenes.sphere(1280, 64, batch=64)),
        Case(scenes.modelled(MIDDLE_SIZE)),
        Case(scenes.soup(5000, MIDDLE_SIZE)),
        Case(scenes.slivers(5000, MIDDLE_SIZE)),
        Case(LARGEST, tasks=("rasterize", "backward")),
        Case(MODEL_SCENE, ("ONNX Runtime",), MODEL),
        *(Case(scene, ("ONNX Runtime",), CHAINS) for scene in LARGER_CHAINS),
    ]
    peaks = [
        *(Case(scenes.sphere(faces, MIDDLE_SIZE), (*RASTERIZERS, "torch"), ("rasterize",)) for faces in COMPARED_FACES),
        Case(scenes.sphere(MIDDLE_FACES, MIDDLE_SIZE), ("ours", "DEODR", "torch"), ("backward", "render_backward")),
        Case(LARGEST, tasks=("rasterize",)),
    ]
    return Suite(tuple(cases), tuple(peaks), rounds=5, seconds=0.1)


def quick() -> Suite:
    """What decides, in about two minutes."""
    cases = [
        *(
            Case(scenes.sphere(faces, MIDDLE_SIZE), COMPARED, (*SWEPT, OF_ALL_FACES, "texture"))
            for faces in COMPARED_FACES
        ),
        *(Case(scenes.sphere(MIDDLE_FACES, size), ("ours",)) for size in (256, 1024)),
        Case(scenes.sphere(1280, MIDDLE_SIZE, batch=8), COMPARED, ("rasterize",)),
        Case(scenes.soup(5000, MIDDLE_SIZE), tasks=("rasterize", "backward")),
        Case(scenes.slivers(5000, MIDDLE_SIZE), tasks=("rasterize", "backward")),
        Case(MODEL_SCENE, ("ONNX Runtime",), MODEL),
    ]
    return Suite(tuple(cases), (), rounds=3, seconds=0.05)


def smoke() -> Suite:
    """Seconds, with what `make setup` installs."""
    cases = [
        Case(scenes.sphere(80, 24), ("ours", "torch"), (*OPS, OF_ALL_FACES)),
        Case(scenes.sphere(320, 32), ("ours", "torch"), ("rasterize",)),
        Case(scenes.sphere(80, 16, batch=2), OURS, ("rasterize",)),
        Case(scenes.soup(10, 16), ("ours", "torch"), ("rasterize",)),
        Case(scenes.slivers(10, 16), ("ours",), ("rasterize",)),
    ]
    return Suite(tuple(cases), (Case(scenes.sphere(80, 64), ("ours",), ("rasterize",)),), rounds=2, seconds=0.0)
