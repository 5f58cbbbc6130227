"""Trains a generator of textured objects from pictures alone, and shows what it has learnt.

    python examples/generate.py --output build/generation
    python examples/generate.py --output build/generation --page    # and puts the outcome into docs/generation.md

It draws bottles at random, renders a data set of them and another of new ones, and trains on the first with a critic.
Then it writes samples, a way between codes, and each sample above its nearest training picture. A run that was stopped
goes on when it is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from dibr_deploy.data import make_dataset
from dibr_deploy.data.opening import open_dataset
from dibr_deploy.data.shapes import write_shapes
from dibr_deploy.files import write_atomically
from dibr_deploy.generation import compare, pictures, random_codes, rows_of, turntable, way_through
from dibr_deploy.models import MeshGeneratorRenderer
from dibr_deploy.runtime.images import write_gif, write_png
from dibr_deploy.training.adversarial import AdversarialTrainer
from dibr_deploy.training.adversarial_config import AdversarialConfig
from dibr_deploy.training.checkpoint import load_generator

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "generation.md"
PICTURES = ROOT / "docs" / "images"
MARKS = "<!-- written by examples/generate.py -->\n", "<!-- end -->\n"
CLASS = "bottle"
OBJECTS, VIEWS, SIZE, STEPS = 300, 12, 32, 2400
SHOWN, SHOWN_SIZE = 10, 96


def make_data(folder: Path, objects: int, first: int = 0) -> Path:
    """A data set of objects with these numbers, made where it is not there yet."""
    if not (folder / "dataset").exists():
        meshes = write_shapes(folder / "meshes", classes=[CLASS], count=objects, first=first)
        make_dataset(meshes, folder / "dataset", views=VIEWS, size=SIZE)
    return folder / "dataset"


def train(data: Path, run: Path, config: AdversarialConfig) -> MeshGeneratorRenderer:
    """The generator of a run, after its last step."""
    AdversarialTrainer(data, run, config, resume=(run / "checkpoint.pt").exists()).run()
    return load_generator(run)


def show(model: MeshGeneratorRenderer, data: Path, new: Path, folder: Path, count: int) -> list[tuple[str, ...]]:
    """Writes generation_samples.png, generation_nearest.png and generation_way.gif; returns the table of distances."""
    large = MeshGeneratorRenderer(model.network, SHOWN_SIZE, SHOWN_SIZE)
    codes = random_codes(model, SHOWN, seed=1)
    sides = [pictures(large, codes, camera.expand(SHOWN, 4, 4)) for camera in turntable(3)]
    write_png(folder / "generation_samples.png", rows_of(torch.cat(sides), SHOWN).numpy())
    way = way_through(random_codes(model, 5, seed=2), steps=12)
    frames = pictures(large, way, turntable(len(way), turns=2))
    write_gif(folder / "generation_way.gif", list(frames[:, :3].permute(0, 2, 3, 1).numpy()))
    training = open_dataset(data)
    found = compare(model, training, open_dataset(new), count=count)
    known = training.views(found.nearest_view[:SHOWN].tolist()).image
    write_png(folder / "generation_nearest.png", _enlarged(rows_of(torch.cat([found.shown[:SHOWN, :3], known]), SHOWN)))
    return found.table()


def markdown(rows: list[tuple[str, ...]]) -> str:
    head, *others = rows
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *others]
    return "".join("| " + " | ".join(row) + " |\n" for row in lines)


def put_into_page(text: str, page: Path) -> None:
    """Replaces what stands between the marks."""
    start, end = MARKS
    before, rest = page.read_text().split(start)
    _, after = rest.split(end)
    write_atomically(page, before + start + text + end + after)


def _enlarged(picture: torch.Tensor) -> np.ndarray:
    """Pixel by pixel, as large as the other pictures."""
    times = SHOWN_SIZE // SIZE
    return picture.repeat_interleave(times, dim=0).repeat_interleave(times, dim=1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for data, run and pictures")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training (default %(default)s)")
    parser.add_argument("--objects", type=int, default=OBJECTS, help="to train on (default %(default)s)")
    parser.add_argument("--samples", type=int, default=512, help="to measure (default %(default)s)")
    parser.add_argument("--page", action="store_true", help="write docs/generation.md's figures anew")
    arguments = parser.parse_args()
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    data = make_data(folder / "training", arguments.objects)
    new = make_data(folder / "new", max(arguments.objects // 5, 1), first=arguments.objects)
    model = train(data, folder / "run", AdversarialConfig(steps=arguments.steps, checkpoint_every=150))
    table = show(model, data, new, PICTURES if arguments.page else folder, arguments.samples)
    print(markdown(table), end="")
    if arguments.page:
        put_into_page(markdown(table), PAGE)


if __name__ == "__main__":
    main()
