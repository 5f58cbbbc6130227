"""`dibr evaluate`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `evaluate`."""
    command = subparsers.add_parser("evaluate", help="compare predictions from single images with the true objects")
    command.add_argument("--checkpoint", type=Path, required=True, metavar="RUN", help="run folder or checkpoint")
    command.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="dataset with truth.json")
    command.add_argument("--views", type=int, default=4, help="images of each object to predict from (default 4)")
    command.add_argument("--resolution", type=int, default=32, help="of the voxels along an axis (default 32)")
    command.add_argument("--threshold", type=float, default=0.05, help="of the F-score, world units (default 0.05)")
    command.add_argument("--training-data", type=Path, metavar="FOLDER", help="with truth, for the fixed shape")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the scores of every object as JSON")
    command.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    import torch

    from .evaluation import bootstrap_interval, class_means, evaluate, fixed_shape_iou, true_solids
    from .files import write_atomically
    from .runtime.tables import aligned
    from .training import load_checkpoint

    scores = evaluate(
        load_checkpoint(arguments.checkpoint),
        arguments.data,
        views=arguments.views,
        resolution=arguments.resolution,
        threshold=arguments.threshold,
    )
    head = ("class", "objects", "3D IoU", f"F-score at {arguments.threshold:g}", "texture L1", "light angle")
    rows = [
        (row.class_name, row.object_id, *(f"{value:.3f}" for value in row[2:5]), f"{row.light_angle:.1f}")
        for row in class_means(scores)
    ]
    print("\n".join(aligned([head, *rows], left=1)))
    if arguments.training_data is not None:
        solids = true_solids(arguments.data, arguments.resolution)
        training = torch.stack(list(true_solids(arguments.training_data, arguments.resolution).values()))
        fixed = fixed_shape_iou(torch.stack([solids[row.object_id] for row in scores]), training)
        gains = [row.iou - float(base) for row, base in zip(scores, fixed, strict=True)]
        low, high = bootstrap_interval(gains)
        print(f"3D IoU of the best fixed shape of the training objects: {float(fixed.mean()):.3f}")
        print(f"gain over it: {sum(gains) / len(gains):.3f}, 95 % interval {low:.3f} to {high:.3f}")
    if arguments.output is not None:
        content = json.dumps([row._asdict() for row in scores], indent=1)
        write_atomically(arguments.output, content + "\n")
