"""`dibr evaluate`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .evaluation import Scores
    from .models import ImageToMeshRenderer
    from .runtime.session import Session


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `evaluate`."""
    command = subparsers.add_parser("evaluate", help="compare predictions from single images with the true objects")
    model = command.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, metavar="RUN", help="run folder or checkpoint")
    model.add_argument("--model", type=Path, metavar="FILE", help="written by `dibr export`")
    command.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="dataset whose truth is known")
    command.add_argument("--views", type=int, default=4, help="images of each object to predict from (default 4)")
    command.add_argument("--resolution", type=int, default=32, help="of the voxels along an axis (default 32)")
    command.add_argument("--threshold", type=float, default=0.05, help="of the F-score, world units (default 0.05)")
    command.add_argument("--training-data", type=Path, metavar="FOLDER", help="with truth, for fixed shape and colour")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the scores of every object as JSON")
    command.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from .evaluation import MEASURES, class_means, evaluate
    from .files import write_atomically
    from .runtime.tables import aligned

    model, appearance = _model(arguments)
    scores = evaluate(
        model,
        arguments.data,
        views=arguments.views,
        resolution=arguments.resolution,
        threshold=arguments.threshold,
        appearance=appearance,
    )
    head = ("class", "objects", "3D IoU", f"F-score at {arguments.threshold:g}", "texture L1", "light angle")
    rows = [(row.class_name, row.object_id, *map(_number, row[2:5]), _number(row[5], 1)) for row in class_means(scores)]
    print("\n".join(aligned([head, *rows], left=1)))
    for measure, name in zip(MEASURES, head[2:], strict=True):
        known = sum(not math.isnan(getattr(row, measure)) for row in scores)
        if 0 < known < len(scores):
            print(f"{name}: known of {known} of {len(scores)} objects, whose means these are")
    if arguments.training_data is not None:
        _print_gains(scores, arguments)
    if arguments.output is not None:
        # JSON has no NaN: what is not known is null there.
        kept = [{name: None if value != value else value for name, value in row._asdict().items()} for row in scores]
        write_atomically(arguments.output, json.dumps(kept, indent=1) + "\n")


def _model(arguments: argparse.Namespace) -> tuple[ImageToMeshRenderer | Session, bool]:
    """What to judge, and whether it has learned texture and light: what is exported does not say, and counts as yes."""
    from .runtime.session import Session
    from .training.checkpoint import learned_appearance, model_of, read_checkpoint

    if arguments.model is not None:
        return Session(arguments.model), True
    content = read_checkpoint(arguments.checkpoint)
    return model_of(content, arguments.checkpoint), learned_appearance(content)


def _print_gains(scores: list[Scores], arguments: argparse.Namespace) -> None:
    """Over what does not look at the image. Paint is compared where it is known of both datasets and predicted."""
    import torch

    from .evaluation import fixed_shape_iou, true_solids
    from .fixed_paint import fixed_colour_l1, true_colours

    ours, training = (
        torch.stack(list(solids.values()))
        for solids in true_solids(arguments.data, arguments.training_data, resolution=arguments.resolution)
    )
    fixed = fixed_shape_iou(ours, training).tolist()
    gains = [row.iou - base for row, base in zip(scores, fixed, strict=True)]
    _print_gain("3D IoU of the best fixed shape of the training objects", fixed, "gain over it", gains)
    painted = [row for row in scores if not math.isnan(row.texture_l1)]
    paints = list(true_colours(arguments.training_data).values()) if painted else []
    if paints:
        colour_l1 = fixed_colour_l1(true_colours(arguments.data), paints)
        fixed = [colour_l1[row.object_id] for row in painted]
        gains = [base - row.texture_l1 for row, base in zip(painted, fixed, strict=True)]
        _print_gain("texture L1 of the best single colour of the training objects", fixed, "undercut by", gains)


def _print_gain(baseline: str, values: list[float], gain: str, gains: list[float]) -> None:
    from .evaluation import bootstrap_interval

    low, high = bootstrap_interval(gains)
    print(f"{baseline}: {sum(values) / len(values):.3f}")
    print(f"{gain}: {sum(gains) / len(gains):.3f}, 95 % interval {low:.3f} to {high:.3f}")


def _number(value: float, digits: int = 3) -> str:
    """A dash where it is not known."""
    return "-" if value != value else f"{value:.{digits}f}"
