"""A network for pictures of real meshes: trained, judged on objects that it never saw, and put on a page.

    python scripts/real_meshes.py                   # data, training, evaluation and the page, in build/real_meshes
    python scripts/real_meshes.py --update-docs     # and docs/real_meshes.md with its picture
    python scripts/real_meshes.py --smoke           # the same in a minute, with next to no training

What was stopped goes on, and what is finished is not done again: remove the folder to begin anew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import single_image as study
from single_image import HELD_OUT_VIEWS, ROOT, Baselines, Result, Run, Settings, mean, measures, table, with_interval

from dibr_deploy.data import fetch_meshes, make_dataset
from dibr_deploy.data.variants import write_variants
from dibr_deploy.evaluation import class_means
from dibr_deploy.files import write_atomically

NAMES = ["bunny", "cone", "duck", "soccerball", "teddy", "wheel"]
"""Those of `dibr data fetch` whose surfaces are closed, so that there is a solid to compare with."""
RUN = Run("real", 0, {"steps": 1500})
RANDOM = "random"
PAGE, PICTURE = ROOT / "docs" / "real_meshes.md", ROOT / "docs" / "images" / "real_meshes.png"


class Counts(NamedTuple):
    variants: int
    """Training objects made of each named mesh."""
    held_out_variants: int
    random: int
    """Training objects of the random ones, which are taken as they are."""
    held_out_random: int


FULL, SMOKE = Counts(50, 6, 300, 30), Counts(2, 1, 2, 1)


def make_data(folder: Path, counts: Counts) -> None:
    """``folder/train`` and ``folder/test``, of which no object is in both."""
    if (folder / "test").exists():
        return
    meshes = folder / "meshes"
    fetch_meshes(meshes / "named", objects=NAMES)
    random = fetch_meshes(meshes / RANDOM, objects=[], random=counts.random + counts.held_out_random)
    parts = [
        ("train", 0, counts.variants, random[: counts.random]),
        ("test", counts.variants, counts.held_out_variants, random[counts.random :]),
    ]
    for part, first, count, others in parts:
        shutil.rmtree(folder / part, ignore_errors=True)
        write_variants(meshes / "named", meshes / part, first=first, count=count)
        (meshes / part / RANDOM).mkdir(exist_ok=True)
        for path in others:
            shutil.copyfile(path, meshes / part / RANDOM / path.name)
        make_dataset(meshes / part, folder / part, views=HELD_OUT_VIEWS, lights="view", with_truth=True)


def page(folder: Path, counts: Counts, settings: Settings, result: Result, base: Baselines) -> str:
    return f"""# A network for pictures of real meshes

The network of [single_image.md](single_image.md), trained on renderings of meshes that were not made for it. One
command does all of it, from the download to this page:

    python scripts/real_meshes.py --update-docs

Each of {len(NAMES)} real meshes of `dibr data fetch` ([data.md](data.md)) gives {counts.variants} training objects, stretched along each axis, tilted
and tinted at random; {counts.random} more are of the same package's random objects, as they are. `dibr demo` does not
run this network but one for the classes of [single_image.md](single_image.md). Held out are:

- {counts.held_out_variants} other variants of each named mesh, with other proportions, poses and tints;
- the {counts.held_out_random} random objects that follow, whose meshes training did not have.

{results_table(result, base)}

Each held-out object is predicted from {settings.judged_views} single images, as `dibr evaluate` does. *Fixed shape* is the one solid that
suits all training objects best, *of its class* the best for each class. Over the fixed shape the mean gain is
{with_interval(study.gains(result.scores, base.fixed))}, over that of its class {with_interval(study.gains(result.scores, base.of_class))}, with 95 % bootstrap intervals
over the held-out objects; the best fixed direction of light is {mean(list(base.light_angle.values())):.1f}° from the true ones in the axes of the
cameras, as the network predicts them, and {mean(list(base.world_light_angle.values())):.1f}° in those of the world.

![Input; the truth and the prediction from two other sides](images/real_meshes.png)

Held-out objects, two of each class: the one image that the network sees, and from two other sides the truth and the
prediction, with the texture and the light that it predicts.

## How it was made

    dibr data fetch --output named --objects {" ".join(NAMES)}
    dibr data variants --meshes named --output meshes/train --count {counts.variants}
    dibr data variants --meshes named --output meshes/test --count {counts.held_out_variants} --first {counts.variants}
    dibr data make --meshes meshes/train --output train --views {HELD_OUT_VIEWS} --lights view --truth
    dibr data make --meshes meshes/test --output test --views {HELD_OUT_VIEWS} --lights view --truth
    dibr train --config scripts/single_image.toml --data train --output run --steps {RUN.changes["steps"]}
    dibr evaluate --checkpoint run --data test --training-data train --views {settings.judged_views}

with the random objects (`dibr data fetch --random {counts.random + counts.held_out_random}`), the first {counts.random} in `meshes/train/random` and the others in
`meshes/test/random`. Settings are those of `textured_0` of
[single_image.md](single_image.md) but for {study.settings_of(RUN)}. {result.record["steps"][1]:,} steps took {result.record["cpu_seconds"] / 60:.0f} minutes of one core.

Trained at commit {", ".join(result.record["commits"])}, {result.record["date"]}, {result.record["versions"]}, no GPU.
"""  # noqa: E501


def results_table(result: Result, base: Baselines) -> str:
    head = [
        "class",
        "held-out objects",
        "3D IoU",
        "fixed shape",
        "of its class",
        "F-score",
        "texture L1",
        "light angle",
    ]
    rows = []
    for row in class_means(result.scores):
        own = [score.object_id for score in result.scores if row.class_name in (score.class_name, "all")]
        iou, *others = measures(row)
        fixed = [f"{mean([values[name] for name in own]):.3f}" for values in (base.fixed, base.of_class)]
        rows.append([row.class_name, row.object_id, iou, *fixed, *others])
    return table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train and judge a network on renderings of real meshes.")
    parser.add_argument("--output", type=Path, help="folder (default build/real_meshes, or real_meshes_smoke)")
    parser.add_argument("--smoke", action="store_true", help="the smallest data, and two steps of training")
    parser.add_argument("--update-docs", action="store_true", help="also write the page and its picture")
    arguments = parser.parse_args()
    if arguments.smoke and arguments.update_docs:
        parser.error("--update-docs needs the whole training")
    counts = SMOKE if arguments.smoke else FULL
    settings = Settings(counts.variants, HELD_OUT_VIEWS, counts.held_out_variants, judged_views=4)
    folder = arguments.output or ROOT / "build" / ("real_meshes_smoke" if arguments.smoke else "real_meshes")
    folder.mkdir(parents=True, exist_ok=True)
    commit = study.current_commit()
    make_data(folder, counts)
    study.train(folder, RUN, study.config_of(RUN, {"steps": 2} if arguments.smoke else {}), commit)
    result = study.judge(folder, RUN, settings)
    text = page(folder, counts, settings, result, study.baselines(folder, settings))
    write_atomically(folder / "real_meshes.md", text)
    study.picture(folder, RUN.name, study.shown(folder, 2)).save(folder / "real_meshes.png", optimize=True)
    if arguments.update_docs:
        write_atomically(PAGE, text)
        write_atomically(PICTURE, (folder / "real_meshes.png").read_bytes())
    print(f"written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
