"""One image to a mesh, measured: four networks, judged on objects that they never saw.

    python scripts/single_image.py                   # data, training, evaluation and the page, in build/single_image
    python scripts/single_image.py --update-docs     # and the page of the repository, with its picture
    python scripts/single_image.py --smoke           # the same in a minute, with next to no training

Two seeds, each with texture and light and from silhouettes alone. A run that was stopped goes on, and what is finished
is not done again: remove the folder to begin anew. `--train RUN` leaves the other runs to another process.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that wait leave their core to others

import numpy as np
import torch
from PIL import Image
from sources import current_commit
from torch import Tensor

from dibr_deploy import evaluation
from dibr_deploy.cameras import view_axes
from dibr_deploy.data import PosedImages, make_dataset
from dibr_deploy.data.shapes import write_shapes
from dibr_deploy.data.truth import TRUTH_NAME, lights_of, read_truth
from dibr_deploy.evaluation import F_SCORE_THRESHOLD, MEASURES, Scores, bootstrap_interval, class_means
from dibr_deploy.files import write_atomically
from dibr_deploy.fixed_paint import fixed_colour_l1, fixed_colour_of_class_l1, true_colours
from dibr_deploy.metrics import light_angle
from dibr_deploy.models import RenderedPrediction
from dibr_deploy.pictures import to_bytes
from dibr_deploy.training import Trainer, TrainingConfig, load_checkpoint
from dibr_deploy.training.checkpoint import read_checkpoint
from dibr_deploy.training.config import parse_config, read_config_file

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "scripts" / "single_image.toml"
PAGE = ROOT / "docs" / "single_image.md"
PICTURE = ROOT / "docs" / "images" / "single_image.png"
SHOWN = "textured_0"
"""The run in the picture: chosen by its name, not by its score."""
SHOWN_VIEWS = (0, 2, 5)
"""Views of a held-out object in the picture: the input, and two from which the prediction is shown beside the truth."""


F_SCORE = f"F-score at {F_SCORE_THRESHOLD:g}"
"""Head of its column: the threshold is in world units."""


WHAT_IS_GAINED = """What is gained, with 95 % bootstrap intervals over the held-out objects, and in brackets the classes
that have no gain with an interval above zero:"""


class Settings(NamedTuple):
    objects: int
    """Training objects per class."""
    views: int
    """Of each training object; every eighth is held out."""
    held_out: int
    """Objects per class that training does not have."""
    judged_views: int
    """Images of each of them that are predicted from, one by one."""
    size: int = 64
    """Of the images, pixels."""
    ambient: float = 0.4
    """Part of the light that comes from everywhere."""


FULL = Settings(200, 8, 12, 4)
SMOKE = Settings(2, 4, 1, 1)
HELD_OUT_VIEWS = 8
"""Views of a held-out object, over all of which textures are compared."""


class Run(NamedTuple):
    name: str
    seed: int
    changes: dict[str, Any]
    """Of the settings in CONFIG."""

    @property
    def textured(self) -> bool:
        return self.changes.get("color_weight", 1.0) > 0


KINDS: dict[str, dict[str, Any]] = {
    "textured": {},
    "silhouette": {"color_weight": 0.0, "shading_weight": 0.0, "colour_features": 0},
}
RUNS = [Run(f"{kind}_{seed}", seed, changes) for kind, changes in KINDS.items() for seed in (0, 1)]


class Result(NamedTuple):
    """What became of a run."""

    run: Run
    scores: list[Scores]
    record: dict[str, Any]
    """Seconds, load and versions of its training."""


class Baselines(NamedTuple):
    """Scores of every held-out object with what does not look at the image, by id."""

    fixed: dict[str, float]
    """3D IoU with the best shape for all training objects."""
    of_class: dict[str, float]
    """With the best shape for those of its class."""
    colour: dict[str, float]
    """Texture L1 of the one colour that suits all training objects best."""
    colour_of_class: dict[str, float]
    """Of the one that suits those of its class best."""
    light_angle: dict[str, float]
    """Degrees between an object's lights, in the axes of the cameras, and the one direction there that suits those of
    all training images best."""
    world_light_angle: dict[str, float]
    """The same in world space."""


# --- What is done, each step once.


def make_data(folder: Path, settings: Settings) -> None:
    """``folder/train`` and ``folder/test``, of which no object is in both."""
    parts = [
        ("train", 0, settings.objects, settings.views),
        ("test", settings.objects, settings.held_out, HELD_OUT_VIEWS),
    ]
    for name, first, count, views in parts:
        if not (folder / name).exists():
            meshes = write_shapes(folder / "meshes" / name, first=first, count=count)
            light = {"lights": "view", "ambient": settings.ambient}
            make_dataset(meshes, folder / name, views=views, size=settings.size, with_truth=True, **light)


def config_of(run: Run, changes: dict[str, Any]) -> TrainingConfig:
    return parse_config({**read_config_file(CONFIG), "seed": run.seed, **run.changes, **changes})


def train(folder: Path, run: Run, config: TrainingConfig, commit: str) -> None:
    """Trains ``folder/RUN`` to its end, and notes in ``folder/RUN.json`` what each session of it took.

    commit: that this program was started at.
    """
    output, notes = folder / run.name, folder / f"{run.name}.json"
    begun = (output / "checkpoint.pt").exists()
    trainer = Trainer(folder / "train", output, config, resume=begun)
    if trainer.step >= config.steps:
        return
    first, clock, cpu = trainer.step, time.monotonic(), time.process_time()
    try:
        trainer.run()
    finally:
        session = {
            "steps": [first, trainer.step],
            "seconds": round(time.monotonic() - clock),
            "cpu_seconds": round(time.process_time() - cpu),
            "load": round(os.getloadavg()[2], 1),
            "threads": torch.get_num_threads(),
            "versions": f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}",
            "date": datetime.date.today().isoformat(),
            "commit": commit,
        }
        earlier = json.loads(notes.read_text()) if begun and notes.exists() else []
        write_atomically(notes, json.dumps([*earlier, session], indent=1) + "\n")


def judge(folder: Path, run: Run, settings: Settings) -> Result:
    """Evaluates a run, unless ``folder/RUN_scores.json`` has what came of these weights on this data."""
    kept, record = folder / f"{run.name}_scores.json", joined(json.loads((folder / f"{run.name}.json").read_text()))
    judged = {
        "checkpoint": digest(folder / run.name / "checkpoint.pt"),
        "truth": digest(folder / "test" / TRUTH_NAME),
        "views": settings.judged_views,
    }
    content = json.loads(kept.read_text()) if kept.exists() else {}
    if content.get("judged") == judged:
        return Result(run, [Scores(**row) for row in content["scores"]], record)
    model = load_checkpoint(folder / run.name)
    scores = evaluation.evaluate(model, folder / "test", views=settings.judged_views, appearance=run.textured)
    content = {"judged": judged, "scores": [row._asdict() for row in scores]}
    write_atomically(kept, json.dumps(content, indent=1) + "\n")
    return Result(run, scores, record)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def joined(sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """The notes of a run that may have been stopped: times are sums, the rest is that of the last session."""
    sums = {name: sum(session[name] for session in sessions) for name in ("seconds", "cpu_seconds")}
    return sessions[-1] | sums | {"commits": sorted({session["commit"] for session in sessions})}


def baselines(folder: Path, settings: Settings) -> Baselines:
    """Taken from ``folder/baselines.json`` where they are there of this data."""
    made = kept(
        folder, "baselines", {"views": settings.judged_views}, lambda: made_baselines(folder, settings)._asdict()
    )
    return Baselines(**made)


def kept(folder: Path, name: str, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` gives, or what it gave before for this data and these settings, as ``folder/NAME.json`` has it."""
    path = folder / f"{name}.json"
    key = {part: digest(folder / part / TRUTH_NAME) for part in ("train", "test")} | settings
    content = json.loads(path.read_text()) if path.exists() else {}
    if content.get("of") != key:
        content = {"of": key, "values": make()}
        write_atomically(path, json.dumps(content, indent=1) + "\n")
    return content["values"]


def made_baselines(folder: Path, settings: Settings) -> Baselines:
    solids, training = evaluation.true_solids(folder / "test", folder / "train")
    objects = {**read_truth(folder / "train"), **read_truth(folder / "test")}
    fixed = evaluation.fixed_shape_iou(torch.stack(list(solids.values())), torch.stack(list(training.values())))
    class_of = {name: entry.class_name for name, entry in objects.items()}
    seen, unseen = PosedImages(folder / "train"), PosedImages(folder / "test")
    colours, training_colours = true_colours(folder / "test"), true_colours(folder / "train")
    return Baselines(
        dict(zip(solids, fixed.tolist(), strict=True)),
        evaluation.fixed_shape_of_class_iou(solids, training, class_of),
        fixed_colour_l1(colours, list(training_colours.values())),
        fixed_colour_of_class_l1(colours, training_colours, class_of),
        fixed_light_angle(directions_to_cameras(seen), directions_to_cameras(unseen), settings.judged_views),
        fixed_light_angle(directions(seen), directions(unseen), settings.judged_views),
    )


def fixed_light_angle(training: dict[str, Tensor], held_out: dict[str, Tensor], views: int) -> dict[str, float]:
    """Degrees between the first directions of each held-out object and the best one for all training images."""
    best = evaluation.best_fixed_direction(torch.cat(list(training.values())))
    return {name: float(light_angle(found[:views], best.expand(views, 3)).mean()) for name, found in held_out.items()}


def directions(data: PosedImages) -> dict[str, Tensor]:
    """Towards the lights of every object in world space, [views, 3] by id."""
    truth = read_truth(data.folder)
    found = {name: lights_of(truth[name], len(views)) for name, views in data.views_of.items()}
    return {name: light[:, 1:] for name, light in found.items() if light is not None}


def directions_to_cameras(data: PosedImages) -> dict[str, Tensor]:
    """The same in the axes of the camera of each view."""
    return {
        name: (view_axes(data.world_to_clip[data.views_of[name]]) @ towards.unsqueeze(-1)).squeeze(-1)
        for name, towards in directions(data).items()
    }


# --- The page.


def page(folder: Path, settings: Settings, results: list[Result], base: Baselines) -> str:
    return (
        "\n\n".join(
            [
                "# One image to a mesh, measured",
                introduction(settings),
                results_table(results, base),
                verdict(results, base),
                "![Input; the truth and the prediction from two other sides](images/single_image.png)",
                "Held-out objects, three of each class: the one image that the network sees, and from two other sides "
                f"the\ntruth and the prediction of `{SHOWN}`, with the texture and the light that it predicts.",
                "## By class",
                class_table(results, base),
                "## Every held-out object",
                "3D IoU of each, mean of its predictions from single images.",
                object_table(results, base),
                "## How it was made",
                recipe(folder, settings, results),
            ]
        )
        + "\n"
    )


def introduction(settings: Settings) -> str:
    return f"""The first application of the paper (Chen et al. 2019, section 4.1): a network that turns one image into a shape, a
texture and a light, trained from images, masks and cameras alone. `scripts/single_image.py` is all of it, from data to
this page:

    python scripts/single_image.py --update-docs

There are four classes of random objects (`dibr data shapes`, [data.md](data.md)), {settings.objects} of each for training and
{settings.held_out} of each held out; two seeds, each with texture and light, and from silhouettes alone (`color_weight = 0`).
Each held-out object is predicted from {settings.judged_views} single images; its scores are means over them, as `dibr evaluate`
takes them ([training.md](training.md)).

`dibr demo` runs a network of this kind that was trained on real meshes: [real_meshes.md](real_meshes.md).

The baseline *fixed shape* is the one solid that suits all training objects best; *of its class* is the best solid for
each class, which only somebody who already knows the class could give. The gain is that of the mean 3D IoU, with its
95 % bootstrap interval over the held-out objects. The baseline *one colour* is the one that suits the pixels of all
training objects best, *of its class* those of the training objects of the class; its texture L1 is over the unlit pixels
of the true object, as a prediction's is over those that both cover.

Every image has a light of its own, {settings.ambient} of it from everywhere and the rest from one direction, anywhere above. Each
rendering is compared under the light that is predicted from its own image: shades that are painted into the texture are
wrong in the next view. The baseline *fixed light* is the one direction with the smallest mean angle to the lights of all
training images. Directions are predicted and compared in the axes of the camera that took the image (x to the right, y
up, z towards the viewer): of a bottle, which looks the same from all sides, no image tells where in the world its light
stands. The best fixed direction in world space has a line of its own; it does without the image, but not without its
camera. How bright a surface is under how much light no picture tells: what is predicted is brought to lights that are 1
in all, as those of the data are ([training.md](training.md)). Networks that were trained before there was this rule are
judged by it too."""  # noqa: E501


def gains(scores: Sequence[Scores], base: dict[str, float], measure: str = "iou") -> list[float]:
    """How much better every object is than a baseline: more of the IoU is better, less of the others."""
    sign = 1 if measure == "iou" else -1
    return [sign * (getattr(row, measure) - base[row.object_id]) for row in scores]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def with_interval(values: Sequence[float], digits: int = 3) -> str:
    low, high = bootstrap_interval(values)
    return f"{mean(values):+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def results_table(results: list[Result], base: Baselines) -> str:
    head = ["run", "3D IoU", "gain over the fixed shape", "gain over that of its class"]
    head += [F_SCORE, "texture L1", "light angle"]
    rows = []
    for run, scores, _ in results:
        total = class_means(scores)[-1]
        rows.append(
            [
                f"`{run.name}`",
                f"{total.iou:.3f}",
                with_interval(gains(scores, base.fixed)),
                with_interval(gains(scores, base.of_class)),
                *measures(total)[1:],
            ]
        )
    for name, values in (("fixed shape", base.fixed), ("fixed shape of its class", base.of_class)):
        rows.append([name, f"{mean(list(values.values())):.3f}", *["-"] * 5])
    for name, values in (("one colour", base.colour), ("one colour of its class", base.colour_of_class)):
        rows.append([name, *["-"] * 4, f"{mean(list(values.values())):.3f}", "-"])
    for name, values in (("fixed light", base.light_angle), ("fixed light of the world", base.world_light_angle)):
        rows.append([name, *["-"] * 5, f"{mean(list(values.values())):.1f}°"])
    return table(head, rows)


def verdict(results: list[Result], base: Baselines) -> str:
    """Whether what was asked for holds, in words that follow the numbers."""
    lacking = []
    for run, scores, _ in results:
        values = gains(scores, base.fixed)
        if mean(values) < 0.05 or bootstrap_interval(values)[0] <= 0:
            lacking.append(f"`{run.name}`")
    gain = "Asked for is a gain over the fixed shape of 0.05, with an interval above zero: all runs have it."
    if lacking:
        gain = f"Asked for is a gain of 0.05 with an interval above zero; {', '.join(lacking)} did not reach it."
    textured = [result for result in results if result.run.textured]
    bullets = [
        compared("3D IoU, over the fixed shape of its class", results, base.of_class, "iou"),
        compared("texture L1, under that of one colour", textured, base.colour, "texture_l1"),
        compared("texture L1, under that of one colour of its class", textured, base.colour_of_class, "texture_l1"),
        compared("degrees nearer to the light than the fixed one", textured, base.light_angle, "light_angle"),
        compared("degrees nearer than the fixed one of the world", textured, base.world_light_angle, "light_angle"),
    ]
    return "\n".join(
        [
            gain,
            learned("Textures", "the best one colour of their class", textured, base.colour_of_class, "texture_l1"),
            learned("Lights", "the best fixed one", textured, base.light_angle, "light_angle"),
            "",
            WHAT_IS_GAINED,
            "",
            *bullets,
        ]
    )


def learned(what: str, than: str, results: Sequence[Result], base: dict[str, float], measure: str) -> str:
    """A sentence: they are where every run gains over the baseline, whose name is ``than``."""
    lacking = [result for result in results if bootstrap_interval(gains(result.scores, base, measure))[0] <= 0]
    names = " and ".join(f"`{run.name}`" for run, _, _ in lacking or results)
    nearer = f"nearer to the true ones than {than}, with an interval\nabove zero"
    if lacking:
        return f"{what} are not learned: those of {names} are not {nearer}."
    return f"{what} are learned: those of {names} are {nearer}."


def compared(what: str, results: Sequence[Result], base: dict[str, float], measure: str) -> str:
    """A bullet: the gain of each run over a baseline, and the classes in which it has none."""
    digits = 1 if measure == "light_angle" else 3
    runs = []
    for run, scores, _ in results:
        values = {name: gains(own, base, measure) for name, own in by_class(scores).items()}
        lacking = [
            f"{name} {with_interval(own, digits)}" for name, own in values.items() if bootstrap_interval(own)[0] <= 0
        ]
        without = f" (not in {' and '.join(lacking)})" if lacking else ""
        runs.append(f"`{run.name}` {with_interval(gains(scores, base, measure), digits)}{without}")
    return f"- {what}: {'; '.join(runs)}"


def by_class(scores: Sequence[Scores]) -> dict[str, list[Scores]]:
    names = sorted({row.class_name for row in scores})
    return {name: [row for row in scores if row.class_name == name] for name in names}


def class_table(results: list[Result], base: Baselines) -> str:
    head = ["class", "objects", "run", "3D IoU", "fixed shape of its class", F_SCORE, "texture L1"]
    head += ["one colour of its class", "light angle", "fixed light"]
    rows = []
    for number, name in enumerate(by_class(results[0].scores)):
        for run, scores, _ in results:
            row = class_means(scores)[number]
            shape, colour, light = (
                mean([values[score.object_id] for score in by_class(scores)[name]])
                for values in (base.of_class, base.colour_of_class, base.light_angle)
            )
            iou, f_score, texture, angle = measures(row)
            rows.append([name, row.object_id, f"`{run.name}`", iou, f"{shape:.3f}", f_score])
            rows[-1] += [texture, f"{colour:.3f}", angle, f"{light:.1f}°"]
    return table(head, rows)


def object_table(results: list[Result], base: Baselines) -> str:
    head = ["object", *(f"`{run.name}`" for run, _, _ in results), "fixed shape", "of its class"]
    rows = []
    for columns in zip(*(scores for _, scores, _ in results), strict=True):
        name = columns[0].object_id
        values = [*(score.iou for score in columns), base.fixed[name], base.of_class[name]]
        rows.append([name, *(f"{value:.3f}" for value in values)])
    return table(head, rows)


def measures(row: Scores) -> list[str]:
    """MEASURES of a row as text; a dash where they are not known."""
    texts = [f"{row.iou:.3f}", f"{row.f_score:.3f}", f"{row.texture_l1:.3f}", f"{row.light_angle:.1f}°"]
    return ["-" if np.isnan(getattr(row, name)) else text for name, text in zip(MEASURES, texts, strict=True)]


def recipe(folder: Path, settings: Settings, results: list[Result]) -> str:
    first = RUNS[0]
    config = read_checkpoint(folder / first.name)["training"]["config"]
    kept = {name: value for name, value in config.items() if name not in ("seed", "device", "tensorboard")}
    rows = [
        [
            f"`{run.name}`",
            f"{record['steps'][1]:,}",
            f"{record['seconds'] / 60:.0f}",
            f"{record['cpu_seconds'] / 60:.0f}",
            str(record["threads"]),
            f"{record['load']:g}",
            ", ".join(record["commits"]),
        ]
        for run, _, record in results
    ]
    last = results[-1].record
    parameters = sum(weight.numel() for weight in load_checkpoint(folder / first.name).network.parameters())
    differences = [[f"`{run.name}`", settings_of(run)] for run in RUNS[1:]]
    return f"""    dibr data shapes --output meshes/train --count {settings.objects}
    dibr data shapes --output meshes/test --count {settings.held_out} --first {settings.objects}
    dibr data make --meshes meshes/train --output train --views {settings.views} --size {settings.size} --lights view --ambient {settings.ambient} --truth
    dibr data make --meshes meshes/test --output test --views {HELD_OUT_VIEWS} --size {settings.size} --lights view --ambient {settings.ambient} --truth
    dibr train --config scripts/single_image.toml --data train --output run --seed 0
    dibr evaluate --checkpoint run --data test --training-data train --views {settings.judged_views}

Settings of `{first.name}` (`TrainingConfig`), whose network has {parameters:,} parameters:

{table(["setting", "value"], [[f"`{name}`", str(value)] for name, value in sorted(kept.items())])}

The other runs differ from it by:

{table(["run", "settings"], differences)}

Training, on a machine that did other work too: the load is the mean number of processes that wanted its
{os.cpu_count()} cores in the last 15 minutes of a run.

{table(["run", "steps", "minutes", "minutes of one core", "threads", "load", "trained at commit"], rows)}

{last["date"]}, {last["versions"]}, no GPU."""  # noqa: E501


def settings_of(run: Run) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in {"seed": run.seed, **run.changes}.items())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---" if number == 0 else "---:" for number in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows])


@torch.no_grad()
def picture(folder: Path, run: str, objects: Sequence[str]) -> Image.Image:
    """A column per object; from top to bottom the input, then truth and prediction from two other views."""
    dataset, model = PosedImages(folder / "test"), load_checkpoint(folder / run)
    columns = []
    for object_id in objects:
        views = dataset.views([dataset.views_of[object_id][view] for view in SHOWN_VIEWS])
        prediction = model.network.in_world(model.network(views.image[:1]), views.world_to_clip[:1])
        rendered: RenderedPrediction = model.render(
            type(prediction)(*(part.expand(2, *part.shape[1:]) for part in prediction)), views.world_to_clip[1:]
        )
        photos = views.image.permute(0, 2, 3, 1)
        columns.append(torch.cat([photos[0], photos[1], rendered.image[0], photos[2], rendered.image[1]]))
    pixels = to_bytes(torch.cat(columns, dim=1))
    return Image.fromarray(pixels)


def shown(folder: Path, per_class: int) -> list[str]:
    """The first held-out objects of every class."""
    of_class: dict[str, list[str]] = {}
    for name, entry in read_truth(folder / "test").items():
        of_class.setdefault(entry.class_name, []).append(name)
    return [name for _, names in sorted(of_class.items()) for name in names[:per_class]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Train and judge networks that turn one image into a mesh.")
    parser.add_argument("--output", type=Path, help="folder (default build/single_image, or single_image_smoke)")
    parser.add_argument("--smoke", action="store_true", help="the smallest data, and two steps of training")
    parser.add_argument(
        "--train", nargs="+", metavar="RUN", choices=[run.name for run in RUNS], help="no more than this"
    )
    parser.add_argument("--update-docs", action="store_true", help="also write docs/single_image.md and its picture")
    arguments = parser.parse_args()
    if arguments.smoke and arguments.update_docs:
        parser.error("--update-docs needs the whole training")
    settings = SMOKE if arguments.smoke else FULL
    folder = arguments.output or ROOT / "build" / ("single_image_smoke" if arguments.smoke else "single_image")
    folder.mkdir(parents=True, exist_ok=True)
    commit = current_commit()
    make_data(folder, settings)
    for run in RUNS:
        if run.name in (arguments.train or [run.name]):
            train(folder, run, config_of(run, {"steps": 2} if arguments.smoke else {}), commit)
    if arguments.train:
        return 0
    results = [judge(folder, run, settings) for run in RUNS]
    text = page(folder, settings, results, baselines(folder, settings))
    write_atomically(folder / "single_image.md", text)
    picture(folder, SHOWN, shown(folder, 3)).save(folder / "single_image.png", optimize=True)
    if arguments.update_docs:
        write_atomically(PAGE, text)
        write_atomically(PICTURE, (folder / "single_image.png").read_bytes())
    print(f"written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
