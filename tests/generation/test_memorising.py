"""A maker that repeats its training objects is told from one that does not, however bad what it makes is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dibr_deploy.cli import main
from dibr_deploy.data import make_dataset
from dibr_deploy.data.shapes import write_shapes
from dibr_deploy.errors import DibrError
from dibr_deploy.memorising import (
    COPIES,
    MEASURES,
    NEW,
    SAMPLES,
    Flaws,
    Report,
    Seen,
    Solid,
    apart,
    as_bad_as,
    beside,
    compare,
    preference,
    seen,
    true_solids_of,
    worsened,
)
from dibr_deploy.metrics import mask_iou
from dibr_deploy.models import GeneratorConfig, MeshGenerator, MeshGeneratorRenderer
from dibr_deploy.training.checkpoint import save_checkpoint

TRAINED_ON = 40
FLAWS = Flaws(0.035, 0.08)


@pytest.fixture(scope="module")
def bottles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets: 40 training objects, 80 new ones and 40 others, each object seen by cameras of its own."""
    folder = tmp_path_factory.mktemp("bottles")
    for name, count, first in (("training", TRAINED_ON, 0), ("new", 80, 40), ("others", 40, 120)):
        meshes = write_shapes(folder / "meshes" / name, classes=["bottle"], count=count, first=first)
        make_dataset(meshes, folder / name, views=1, size=16, with_truth=True)
    return folder


@pytest.fixture(scope="module")
def solids(bottles: Path) -> dict[str, list[Solid]]:
    return {name: true_solids_of(bottles / name) for name in ("training", "new", "others")}


def _report(solids: dict[str, list[Solid]], made: list[Solid]) -> Report:
    return compare(made, solids["training"], solids["new"])


def test_a_copier_with_flaws_is_found_out(solids: dict[str, list[Solid]]) -> None:
    """Its copies are farther from the training objects than new objects are: distance alone would not give it away."""
    report = _report(solids, worsened(solids["training"], FLAWS, seed=7))
    shape = report.groups["shape"]
    assert shape[SAMPLES].to_training.median() > shape[NEW].to_training.median()
    assert report.memorises() is True
    assert report.verdict().startswith("It repeats")


def test_exact_copies_are_found_out(solids: dict[str, list[Solid]]) -> None:
    report = _report(solids, solids["training"])
    assert [one[SAMPLES].share for one in report.groups.values()] == [1, 1, 1]
    assert report.memorises() is True


@pytest.mark.parametrize("flaws", [Flaws(0.0, 0.0), FLAWS, Flaws(0.04, 0.1)])
def test_independent_objects_are_not_taken_for_copies(solids: dict[str, list[Solid]], flaws: Flaws) -> None:
    report = _report(solids, worsened(solids["others"], flaws, seed=7))
    assert report.memorises() is False
    assert all(one[COPIES].share > one[SAMPLES].share for one in report.groups.values())


def test_a_copier_of_a_few_objects_is_found_out(solids: dict[str, list[Solid]]) -> None:
    """As a generator that has collapsed to a tenth of what it was trained on."""
    few = [solid for solid in solids["training"][:10] for _ in range(4)]
    assert _report(solids, worsened(few, Flaws(0.01, 0.02), seed=7)).memorises() is True


def test_what_is_too_bad_to_tell_is_not_acquitted(solids: dict[str, list[Solid]]) -> None:
    report = _report(solids, worsened(solids["others"], Flaws(0.4, 1.0), seed=7))
    assert report.memorises() is None
    assert report.verdict().startswith("This check cannot tell")


def test_copies_stand_as_far_off_as_the_samples(solids: dict[str, list[Solid]]) -> None:
    """In the median, from what they were: this is what makes them comparable."""
    flaws = as_bad_as([0.1, 0.12], solids["training"])
    pairs = apart(seen(worsened(solids["training"], flaws)), seen(solids["training"]))
    assert pairs.shape.diagonal().median() == pytest.approx(0.1, rel=0.05)
    assert pairs.colour.diagonal().median() == pytest.approx(0.12, rel=0.05)


def test_distances_are_those_of_their_definition() -> None:
    one, other = (_random_seen(count, seed) for count, seed in ((3, 0), (4, 1)))
    found = apart(one, other)
    for i in range(3):
        for j in range(4):
            views = [m.reshape(-1, 5, 5) for m in (one.masks[i], other.masks[j])]
            assert found.shape[i, j] == pytest.approx(1 - float(mask_iou(*views).mean()))
            both = (one.masks[i] * other.masks[j]).bool()
            difference = (one.colours[i] - other.colours[j])[both]
            assert found.colour[i, j] == pytest.approx(float(difference.square().mean().sqrt()), abs=1e-4)


def test_objects_that_never_overlap_have_no_colour_in_common() -> None:
    left = torch.zeros(1, 2, 25)
    left[..., :5] = 1
    right = left.flip(2)
    found = apart(
        Seen(left, left.unsqueeze(3).expand(1, 2, 25, 3)), Seen(right, right.unsqueeze(3).expand(1, 2, 25, 3))
    )
    assert found.shape.item() == 1 and found.colour.item() == torch.inf


def test_chance_is_evenly_spread_where_names_mean_nothing() -> None:
    """Some objects are the nearest of many, which a binomial test would take for evidence."""
    chances = torch.tensor([_chance_of_noise(seed) for seed in range(200)])
    assert 0.4 < float(chances.mean()) < 0.6
    assert float((chances < 0.05).float().mean()) < 0.1


def _chance_of_noise(seed: int) -> float:
    random = torch.Generator().manual_seed(seed)
    distances = torch.rand(60, 40, generator=random) + 0.3 * torch.rand(40, generator=random)
    return preference(distances[:, :20], distances[:, 20:], seed=seed).chance


def test_equally_near_objects_share_a_vote() -> None:
    found = preference(torch.ones(5, 2), torch.ones(5, 6))
    assert (found.share, found.expected, found.chance) == (pytest.approx(0.25), 0.25, 1.0)
    with pytest.raises(DibrError, match=r"nothing to compare in \[5, 0\] and \[5, 6\]"):
        preference(torch.ones(5, 0), torch.ones(5, 6))


def test_pictures_show_the_nearest(solids: dict[str, list[Solid]]) -> None:
    """A copy without flaws stands above what it is a copy of."""
    made = solids["training"][:3]
    report = _report(solids, made)
    shown = beside(made, solids["training"], solids["new"], report, 32).unflatten(0, (3, 3))
    assert shown.shape == (3, 3, 3, 32, 32)
    torch.testing.assert_close(shown[0], shown[1])
    assert not torch.allclose(shown[0], shown[2], atol=0.05)


def test_too_few_objects_are_refused(solids: dict[str, list[Solid]]) -> None:
    with pytest.raises(DibrError, match="needs samples, training objects and 2 new ones, got 40, 40 and 1"):
        compare(solids["training"], solids["training"], solids["new"][:1])


def test_the_command_prints_tables_and_verdict(
    bottles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = MeshGenerator(GeneratorConfig(latent=5, subdivisions=2, channels=8, features=32))
    save_checkpoint(tmp_path / "checkpoint.pt", MeshGeneratorRenderer(network, 16, 16))
    command = ["generate", "compare", "--checkpoint", str(tmp_path), "--data", str(bottles / "training")]
    assert main([*command, f"--held-out={bottles / 'new'}", "--count=8", f"--picture={tmp_path / 'a.png'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [sum(line.startswith(f"{name}:") for line in lines) for name in MEASURES] == [7, 7, 7]
    assert (tmp_path / "a.png").is_file()


def _random_seen(count: int, seed: int) -> Seen:
    random = torch.Generator().manual_seed(seed)
    masks = (torch.rand(count, 2, 25, generator=random) > 0.4).float()
    colours: Tensor = torch.rand(count, 2, 25, 3, generator=random) * masks.unsqueeze(3)
    return Seen(masks, colours)
