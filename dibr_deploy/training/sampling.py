"""Which views a step sees: a pure function of the seed and the step, so that a resumed run sees the same."""

from __future__ import annotations

import torch

HELD_OUT_SHARE = 8
"""One view of this many is held out."""


def split_views(views_of: dict[str, list[int]]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Training views and held-out views per object: of every eight the last, at least one where there are four."""
    training, held_out = {}, {}
    for name, views in views_of.items():
        count = max(len(views) // HELD_OUT_SHARE, 1) if len(views) >= 4 else 0
        training[name], held_out[name] = views[: len(views) - count], views[len(views) - count :]
    return training, held_out


def held_out_pairs(held_out: dict[str, list[int]]) -> list[tuple[int, int]]:
    """Every held-out view with the object's next one, round after round over the objects: (input, target)."""
    rounds = max((len(views) for views in held_out.values()), default=0)
    return [
        (views[number], views[(number + 1) % len(views)])
        for number in range(rounds)
        for views in held_out.values()
        if number < len(views)
    ]


class PairSampler:
    """Input views and, for each, a second view of the same object.

    Every epoch goes once through all views as inputs, in an order of its own; the second view is drawn among the
    object's others (an object with one view is paired with itself).
    """

    def __init__(self, views_of: dict[str, list[int]], batch: int, seed: int) -> None:
        self._inputs = [(name, view) for name, views in views_of.items() for view in views]
        self._views_of = views_of
        self._batch, self._seed = batch, seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __call__(self, step: int) -> tuple[list[int], list[int]]:
        """Input and target views of a step, each a list of ``batch`` frame indices."""
        draws = torch.rand(self._batch, generator=random_stream(self._seed, 2 * step)).tolist()
        inputs, targets = [], []
        for position, draw in enumerate(draws, start=step * self._batch):
            epoch, place = divmod(position, len(self._inputs))
            name, view = self._inputs[self._permutation(epoch)[place]]
            others = [other for other in self._views_of[name] if other != view] or [view]
            inputs.append(view)
            targets.append(others[int(draw * len(others))])
        return inputs, targets

    def _permutation(self, epoch: int) -> list[int]:
        if self._order[0] != epoch:
            generator = random_stream(self._seed, 2 * epoch + 1)
            self._order = epoch, torch.randperm(len(self._inputs), generator=generator).tolist()
        return self._order[1]


def random_stream(seed: int, stream: int) -> torch.Generator:
    """Random numbers that depend on these two numbers alone."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + stream) % 2**63)
