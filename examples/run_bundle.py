"""Runs the bundle of examples/own_network.py: a picture in, the predicted mesh from eight sides out. Needs no torch.

python examples/run_bundle.py bottles.zip --image bottle.png --output sides.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dibr_deploy.runtime import Session
from dibr_deploy.runtime.cameras import orbit, perspective
from dibr_deploy.runtime.images import load_square, write_png

SIDES = 8


def sides(session: Session, photo: np.ndarray) -> np.ndarray:
    """Pictures [SIDES, H, W, 3] of what the model makes of a photo [3, S, S]."""
    turns = 2 * np.pi * np.arange(SIDES) / SIDES
    cameras = np.stack([perspective(0.733) @ orbit(turn, 0.3, 3.0) for turn in turns]).astype(np.float32)
    return session.run(photo=np.stack([photo] * SIDES), world_to_clip=cameras)["image"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="a picture of any size")
    parser.add_argument("--output", type=Path, default=Path("sides.png"), metavar="FILE")
    arguments = parser.parse_args()
    with Session(arguments.bundle) as session:
        size = session.inputs[0].shape[-1]
        write_png(arguments.output, np.concatenate(list(sides(session, load_square(arguments.image, size))), axis=1))
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
