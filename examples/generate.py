"""Trains a generator of textured objects from pictures alone, and shows what it has learnt.

    python examples/generate.py --output build/generation
    python examples/generate.py --output build/generation --page    # and puts the outcome into docs/generation.md

It draws bottles at random, renders a data set of them and another of new ones, and trains on the first with a critic.
Then it writes samples, a way between codes, and what samples are nearest to: training objects or new ones. A run that
was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dibr_deploy.data import make_dataset
from dibr_deploy.data.shapes import write_shapes
from dibr_deploy.files import write_atomically
from dibr_deploy.generation import pictures, random_codes, rows_of, turntable, way_through
from dibr_deploy.memorising import beside, compare, solids_of, true_solids_of
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
OBJECTS, VIEWS, SIZE, STEPS, LR = 300, 12, 32, 12000, 5e-4
SHOWN, SHOWN_SIZE = 10, 96


def make_data(folder: Path, objects: int, first: int = 0, views: int = VIEWS) -> Path:
    """A data set of objects with these numbers, with its truth, made where it is not there yet."""
    if not (folder / "dataset").exists():
        meshes = write_shapes(folder / "meshes", classes=[CLASS], count=objects, first=first)
        make_dataset(meshes, folder / "dataset", views=views, size=SIZE, with_truth=True)
    return folder / "dataset"


def train(data: Path, run: Path, config: AdversarialConfig) -> MeshGeneratorRenderer:
    """The generator of a run, after its last step."""
    AdversarialTrainer(data, run, config, resume=(run / "checkpoint.pt").exists()).run()
    return load_generator(run)


def show(model: MeshGeneratorRenderer, folder: Path) -> None:
    """Writes generation_samples.png and generation_way.gif."""
    large = MeshGeneratorRenderer(model.network, SHOWN_SIZE, SHOWN_SIZE)
    codes = random_codes(model, SHOWN, seed=1)
    sides = [pictures(large, codes, camera.expand(SHOWN, 4, 4)) for camera in turntable(3)]
    write_png(folder / "generation_samples.png", rows_of(torch.cat(sides), SHOWN).numpy())
    way = way_through(random_codes(model, 5, seed=2), steps=12)
    frames = pictures(large, way, turntable(len(way), turns=2))
    write_gif(folder / "generation_way.gif", list(frames[:, :3].permute(0, 2, 3, 1).numpy()))


def judge(model: MeshGeneratorRenderer, data: Path, new: Path, folder: Path, count: int) -> str:
    """Writes generation_nearest.png; returns the tables and the verdict."""
    training, others = true_solids_of(data), true_solids_of(new)
    made = solids_of(model, random_codes(model, count, seed=0))
    report = compare(made, training, others)
    shown = made[:SHOWN]
    picture = rows_of(beside(shown, training, others, report, SHOWN_SIZE), len(shown))
    write_png(folder / "generation_nearest.png", picture.numpy())
    flaws = f"Made as bad: dents of {report.flaws.dents:.3f}, a stain of {report.flaws.stain:.3f}.\n"
    tables = markdown(report.table()), markdown(report.coverage_table())
    return "\n".join([tables[0], flaws, tables[1], report.verdict() + "\n"])


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
    new = make_data(folder / "new", 2 * arguments.objects, first=arguments.objects, views=1)
    model = train(data, folder / "run", AdversarialConfig(steps=arguments.steps, lr=LR, checkpoint_every=500))
    shown = PICTURES if arguments.page else folder
    show(model, shown)
    found = judge(model, data, new, shown, arguments.samples)
    print(found, end="")
    if arguments.page:
        put_into_page(found, PAGE)


if __name__ == "__main__":
    main()
