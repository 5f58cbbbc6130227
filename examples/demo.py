"""The whole path at small scale, from meshes to a network that runs in ONNX Runtime, and a page that shows it.

Runs the commands a user would type, one after another:

    dibr data fetch    real meshes
    dibr data make     photographs of them, with masks and cameras
    dibr train         a network that turns one image into a textured mesh, through the renderer
    dibr export        the network and the renderer as one ONNX file
    dibr verify        torch against ONNX Runtime
    dibr render        PNG, turning GIF and GLB, without torch

then compares both on views that were held out, and writes report.html. `make demo` runs it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave their core to others

import numpy as np
import report
import torch
from PIL import Image, ImageDraw, ImageFont

from dibr_deploy.data import PosedImages
from dibr_deploy.files import write_atomically
from dibr_deploy.metrics import mask_iou
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.comparison import Agreement, compare
from dibr_deploy.training import load_checkpoint
from dibr_deploy.training.sampling import held_out_pairs, split_views

ROOT = Path(__file__).resolve().parent.parent
DIBR = Path(sys.executable).with_name("dibr")
PICTURE = ROOT / "docs" / "images" / "demo.png"
AMPLIFICATION = 10_000
SHOWN = "duck"
"""The object that `dibr render` shows."""
MADE = ("meshes", "dataset", "run", "model.onnx", "rendered", "report.html")
"""What the demo writes into its folder, and replaces when it runs again."""


@dataclasses.dataclass(frozen=True)
class Settings:
    objects: tuple[str, ...]
    views: int
    """Per object; every eighth is held out of training."""
    size: int
    """Of the images, pixels."""
    steps: int
    frames: int
    """Of the turning GIF."""
    lowest_iou: float
    """With the masks of held-out views; a run below it has failed. The untouched sphere's is below 0.5."""


FULL = Settings(("bunny", "cone", "duck", "mug", "soccerball", "teddy"), 24, 64, 1200, 36, 0.88)
SMOKE = Settings(("duck", "teddy"), 16, 64, 120, 12, 0.7)


class Step(NamedTuple):
    """One command that was run."""

    command: str
    seconds: float


class Comparison(NamedTuple):
    """Both sides on pairs of held-out views; arrays are [N, ...], and the first pair of every object comes first."""

    input: np.ndarray
    """[N, S, S, 3], the view that the network saw."""
    photo: np.ndarray
    """[N, H, W, 3], another one, from whose camera the prediction is rendered."""
    torch: dict[str, np.ndarray]
    onnxruntime: dict[str, np.ndarray]
    report: Agreement
    iou: float
    """Of the predicted masks with those of the other view."""
    sphere_iou: float
    """The same for the sphere that training started from."""


def main() -> int:
    arguments = parse_arguments()
    settings = SMOKE if arguments.smoke else FULL
    folder: Path = arguments.output.resolve()
    began = time.monotonic()
    clear(folder)
    try:
        steps = run_chain(folder, settings)
    except subprocess.CalledProcessError as error:
        print(f"demo: `{shlex.join(map(str, error.cmd))}` failed with exit code {error.returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    compared = compare_held_out(folder)
    seconds = time.monotonic() - began
    report.write_page(
        folder / "report.html",
        "dibr_deploy: from images to a served renderer",
        sections(folder, settings, steps, compared, seconds),
    )
    if arguments.update_docs:
        PICTURE.parent.mkdir(exist_ok=True)
        write_atomically(PICTURE, lambda path: montage(compared, len(settings.objects)).save(path, optimize=True))
    failures = shortcomings(settings, compared)
    for failure in failures:
        print(f"demo: {failure}", file=sys.stderr)
    print(f"mask IoU on held-out views: {compared.iou:.3f} (untouched sphere: {compared.sphere_iou:.3f})")
    print(f"finished in {seconds:.0f} s; the report is {folder / 'report.html'}")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The whole path at small scale; ends with a page that shows it.")
    parser.add_argument("--smoke", action="store_true", help="the smallest settings: two objects, a short training")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "demo", help="folder (default %(default)s)")
    parser.add_argument("--update-docs", action="store_true", help=f"also write {PICTURE.relative_to(ROOT)}")
    return parser.parse_args()


def clear(folder: Path) -> None:
    """Removes what an earlier demo left in the folder, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in MADE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def run_chain(folder: Path, settings: Settings) -> list[Step]:
    """Runs the commands in the folder. Raises CalledProcessError at the first that fails; it has said why."""
    objects = " ".join(settings.objects)
    commands = [
        f"dibr data fetch --objects {objects} --output meshes",
        f"dibr data make --meshes meshes --output dataset --views {settings.views} --size {settings.size}",
        f"dibr train --data dataset --output run --steps {settings.steps}",
        "dibr export --checkpoint run --output model.onnx",
        "dibr verify --checkpoint run --model model.onnx --images dataset/images",
        f"dibr render --model model.onnx --image dataset/images/{SHOWN}_000.png --output rendered "
        f"--frames {settings.frames}",
    ]
    steps = []
    for number, command in enumerate(commands, start=1):
        print(f"\n[{number}/{len(commands)}] {command}", flush=True)
        began = time.monotonic()
        subprocess.run([DIBR, *shlex.split(command)[1:]], cwd=folder, check=True)
        steps.append(Step(command, time.monotonic() - began))
    return steps


@torch.no_grad()
def compare_held_out(folder: Path) -> Comparison:
    """Predicts from views that training never saw, and renders from others that it never saw, through both doors."""
    dataset = PosedImages(folder / "dataset")
    pairs = held_out_pairs(split_views(dataset.views_of)[1])
    seen, wanted = (dataset.views(list(views)) for views in zip(*pairs, strict=True))
    model = load_checkpoint(folder / "run")
    prediction = model.network.in_world(model.network(seen.image), wanted.world_to_clip)
    expected = as_arrays(model.render(prediction, wanted.world_to_clip)._asdict())
    actual = Session(folder / "model.onnx").run(seen.image.numpy(), wanted.world_to_clip.numpy())
    sphere = prediction._replace(vertices=model.network.template.expand_as(prediction.vertices))
    untouched = model.render(sphere, wanted.world_to_clip).face_index
    return Comparison(
        seen.image.permute(0, 2, 3, 1).numpy(),
        wanted.image.permute(0, 2, 3, 1).numpy(),
        expected,
        actual,
        compare(expected, actual),
        mean_iou(torch.from_numpy(actual["face_index"]), wanted.mask),
        mean_iou(untouched, wanted.mask),
    )


def as_arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def mean_iou(face_index: torch.Tensor, mask: torch.Tensor) -> float:
    return float(mask_iou((face_index >= 0).float(), mask).mean())


def shortcomings(settings: Settings, compared: Comparison) -> list[str]:
    """Why this run has not shown what it should; empty where it has."""
    found = []
    if compared.iou < settings.lowest_iou:
        found.append(f"mask IoU on held-out views is {compared.iou:.3f}, below {settings.lowest_iou}")
    if not compared.report.passed:
        names = [difference.output for difference in compared.report.differences if not difference.passed]
        found.append(f"torch and ONNX Runtime differ in {', '.join(names)}")
    return found


# --- The page.


def sections(
    folder: Path, settings: Settings, steps: list[Step], compared: Comparison, seconds: float
) -> list[tuple[str, str]]:
    rendered = folder / "rendered"
    return [
        ("", summary(settings, compared, seconds)),
        ("One image in, a mesh out", pictures(compared, len(settings.objects))),
        ("The same by torch and by ONNX Runtime", parity(compared)),
        ("Turning", turning(rendered)),
        ("Training", loss_curve(folder / "run" / "losses.csv")),
        (
            "What was run",
            report.table(("command", "seconds"), [(step.command, f"{step.seconds:.1f}") for step in steps]),
        ),
    ]


def summary(settings: Settings, compared: Comparison, seconds: float) -> str:
    text = (
        f"A network was trained on {settings.views} pictures of each of {len(settings.objects)} objects, from images, "
        f"masks and cameras alone: it turns one image into vertices, a texture and a light. Network and renderer were "
        f"then exported as one ONNX graph and run in ONNX Runtime. All of it took {seconds / 60:.1f} minutes on this "
        f"machine ({torch.get_num_threads()} threads)."
    )
    iou = (
        f"From views that training never saw, seen from others that it never saw, the predicted masks have an IoU of "
        f"{compared.iou:.3f}; the sphere that training started from has {compared.sphere_iou:.3f}."
    )
    by_name = {difference.output: difference for difference in compared.report.differences}
    agreement = (
        f"torch and ONNX Runtime agree: they see another face at {by_name['face_index'].differing} of "
        f"{by_name['face_index'].compared:,} pixels, and colours differ by {by_name['image'].largest:.0e} at most."
    )
    failures = shortcomings(settings, compared)
    verdicts = [report.verdict(False, failure) for failure in failures] or [report.verdict(True, agreement)]
    return report.paragraph(text) + report.paragraph(iou) + "".join(verdicts)


def pictures(compared: Comparison, count: int) -> str:
    """The first ``count`` pairs."""
    head = ("input", "another view", "torch", "ONNX Runtime", f"difference x {AMPLIFICATION:,}", "soft mask")
    rows = [[to_bytes(column[row]) for column in columns(compared)] for row in range(count)]
    text = (
        "The network sees the input alone. Its mesh is rendered from the camera of another view, by torch and by ONNX "
        "Runtime. The network was trained on these objects, but on neither of the two views. The difference is the "
        "absolute one between the two renderings, amplified."
    )
    return report.paragraph(text) + report.picture_grid(head, rows, 128)


def columns(compared: Comparison) -> list[np.ndarray]:
    """[N, H, W, 3] each, in 0..1."""
    ours, theirs = compared.torch["image"], compared.onnxruntime["image"]
    mask = np.repeat(compared.onnxruntime["mask"][..., None], 3, axis=-1)
    return [compared.input, compared.photo, ours, theirs, AMPLIFICATION * np.abs(ours - theirs), mask]


def parity(compared: Comparison) -> str:
    head = ("output", "shape", "compared", "differing", "allowed", "largest", "mean", "")
    rows = [
        (
            difference.output,
            str(list(difference.shape)),
            difference.compared,
            difference.differing,
            difference.allowed,
            f"{difference.largest:.1e}",
            f"{difference.mean:.1e}",
            "ok" if difference.passed else "FAILED",
        )
        for difference in compared.report.differences
    ]
    text = (
        f"Absolute differences over all {len(compared.photo)} pairs of views. face_index is the face seen at each "
        f"pixel; pixels where it differs are counted, and pictures are compared where it agrees. A number differs when "
        f"it is more than {compared.report.tolerance:g} off."
    )
    return report.paragraph(text) + report.table(head, rows)


def turning(rendered: Path) -> str:
    return (
        report.paragraph(f"dibr render made these from one image of the {SHOWN}, without torch.")
        + report.image_file(rendered / "input.png", "input", 192)
        + report.image_file(rendered / "turntable.gif", "the predicted mesh, turning", 192)
        + report.download(rendered / "mesh.glb", "the mesh with its texture, as GLB")
    )


def loss_curve(log: Path) -> str:
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves = {}
    for name in ("loss", "mask", "color"):
        points = [(int(row["step"]), float(row[name])) for row in rows]
        curves[name] = smoothed(points, max(len(points) // 150, 1))
    text = (
        "loss is what was minimised; mask (1 - soft IoU) and color (mean absolute difference) are its two parts that "
        "look at the images, the others keep the surface smooth."
    )
    return report.line_chart(curves, "step") + report.paragraph(text)


def smoothed(points: list[tuple[int, float]], window: int) -> tuple[list[float], list[float]]:
    """Means over consecutive windows of points."""
    groups = [points[start : start + window] for start in range(0, len(points), window)]
    steps, values = zip(*(np.mean(group, axis=0).tolist() for group in groups), strict=True)
    return list(steps), list(values)


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def montage(compared: Comparison, count: int, scale: int = 2) -> Image.Image:
    """The picture of README.md: a column for each of the first ``count`` pairs, and captioned rows."""
    captions = ("input", "another view", "torch", "ONNX Runtime")
    height, width = compared.photo.shape[1:3]
    margin, cell = 110, (width * scale, height * scale)
    canvas = Image.new("RGB", (margin + count * cell[0], len(captions) * cell[1]), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    for row, (caption, images) in enumerate(zip(captions, columns(compared), strict=False)):
        draw.text((4, (row + 0.5) * cell[1]), caption, fill="black", font=font, anchor="lm")
        for column, image in enumerate(images[:count]):
            picture = Image.fromarray(to_bytes(image)).resize(cell, Image.Resampling.LANCZOS)
            canvas.paste(picture, (margin + column * cell[0], row * cell[1]))
    return canvas.quantize(256, kmeans=4)


if __name__ == "__main__":
    sys.exit(main())
