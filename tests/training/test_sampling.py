"""Which views a step sees."""

from __future__ import annotations

from collections import Counter

from dibr_deploy.training.sampling import PairSampler, split_views

VIEWS = {"duck": [0, 1, 2, 3, 4], "mug": [5, 6, 7], "bunny": [8]}


def object_of(view: int) -> str:
    return next(name for name, views in VIEWS.items() if view in views)


def test_every_epoch_has_every_view_once_as_input() -> None:
    sampler = PairSampler(VIEWS, batch=3, seed=4)
    for epoch in range(5):
        inputs = [view for step in range(3 * epoch, 3 * epoch + 3) for view in sampler(step)[0]]
        assert sorted(inputs) == list(range(9))


def test_targets_are_other_views_of_the_same_object() -> None:
    sampler = PairSampler(VIEWS, batch=4, seed=0)
    seen = Counter((a, b) for step in range(400) for a, b in zip(*sampler(step), strict=True))
    for (source, target), count in seen.items():
        assert object_of(source) == object_of(target)
        assert source != target or object_of(source) == "bunny"
        assert count > 10
    assert len(seen) == 5 * 4 + 3 * 2 + 1


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    forwards, backwards = PairSampler(VIEWS, 4, seed=1), PairSampler(VIEWS, 4, seed=1)
    pairs = [forwards(step) for step in range(20)]
    assert [backwards(step) for step in reversed(range(20))] == pairs[::-1]
    other = PairSampler(VIEWS, 4, seed=2)
    assert [other(step) for step in range(20)] != pairs


def test_one_view_in_eight_is_held_out() -> None:
    views = {"many": list(range(24)), "few": [24, 25, 26, 27], "too few": [28, 29, 30]}
    training, held_out = split_views(views)
    assert {name: len(kept) for name, kept in held_out.items()} == {"many": 3, "few": 1, "too few": 0}
    for name, all_views in views.items():
        assert sorted(training[name] + held_out[name]) == all_views
