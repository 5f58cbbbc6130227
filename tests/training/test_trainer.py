"""Training runs: they learn, they leave what they promise, and they go on exactly where they stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from data.layouts import write_cub, write_rendering
from PIL import Image
from torch import Tensor
from training.launching import assert_close_logs, rows_of, train_by_one_and_two
from training.states import assert_same

from dibr_deploy.errors import DibrError
from dibr_deploy.models.resnet import ResNet18
from dibr_deploy.training import Trainer, TrainingConfig, load_checkpoint
from dibr_deploy.training.checkpoint import read_checkpoint
from dibr_deploy.training.distributed import Processes
from dibr_deploy.training.trainer import LOG_COLUMNS


def test_another_seed_ends_elsewhere(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    """The comparisons of resumed runs can fail."""
    for seed in (0, 1):
        Trainer(dataset, tmp_path / str(seed), config.model_copy(update={"seed": seed, "steps": 1})).run()
    weights = [read_checkpoint(tmp_path / seed)["weights"]["light_head.weight"] for seed in "01"]
    assert not torch.equal(*weights)


def test_training_beats_the_template_on_views_it_never_saw(dataset: Path, tmp_path: Path) -> None:
    config = TrainingConfig(steps=80, batch=4, lr=2e-3, image_size=32, texture_size=32, checkpoint_every=80)
    trainer = Trainer(dataset, tmp_path / "run", config)
    untrained, template = trainer.held_out_iou()
    trainer.run()
    trained, _ = trainer.held_out_iou()
    assert untrained == pytest.approx(template, abs=0.02)
    assert trained > template + 0.2
    losses = [float(row["loss"]) for row in rows_of(tmp_path / "run")]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_held_out_views_are_looked_at_in_batches_of_a_step(
    dataset: Path, config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, memory is that of training; the measure is the mean over all of them."""
    trainer = Trainer(dataset, tmp_path / "run", config)
    with torch.no_grad():
        trainer.model.network.vertex_head[-1].weight.normal_(std=0.1)
    held_out = list(range(7))
    trainer._held_out = {"egg": held_out}
    pixels = trainer.data.pixels
    batches: list[int] = []

    def counted(indices: list[int]) -> Tensor:
        batches.append(len(indices))
        return pixels(indices)

    monkeypatch.setattr(trainer.data, "pixels", counted)
    actual = trainer.held_out_iou()
    assert max(batches) == config.batch == 3
    assert sum(batches) == 2 * len(held_out)
    each = [trainer._mask_ious([view], [(view + 1) % 7]).flatten().tolist() for view in held_out]
    assert actual == pytest.approx([sum(column) / 7 for column in zip(*each, strict=True)], abs=1e-3)
    assert len({round(predicted, 3) for predicted, _ in each}) > 3
    shared = Processes(0, 3)
    monkeypatch.setattr(trainer, "processes", shared)
    batches.clear()
    assert trainer.held_out_iou() == pytest.approx(actual, abs=1e-3)
    assert max(batches) == 1


def test_each_rendering_has_the_light_of_its_own_image(
    dataset: Path, config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is turned by the camera of that image; shape and texture come from the first image of a pair alone."""
    trainer = Trainer(dataset, tmp_path / "run", config)
    inputs, targets = trainer._sampler(0)
    views = trainer.data.views([*inputs, *targets])
    with torch.no_grad():
        trainer.model.network.light_head.weight.normal_()
        expected = trainer.model.network(views.image)
        expected = expected._replace(light=trainer.model(views.image, views.world_to_clip).light)
    rendered = []
    render = trainer.model.render
    monkeypatch.setattr(trainer.model, "render", lambda seen, cameras: rendered.append(seen) or render(seen, cameras))
    trainer._train_step()
    (seen,) = rendered
    torch.testing.assert_close(seen.light, expected.light)
    assert (expected.light[:3] - expected.light[3:]).abs().max() > 0.01
    for name in ("vertices", "texture"):
        first = getattr(expected, name)[:3]
        torch.testing.assert_close(getattr(seen, name), torch.cat([first, first]))


def test_shading_moves_the_light_and_neither_shape_nor_texture(
    dataset: Path, config: TrainingConfig, tmp_path: Path
) -> None:
    alone = {f"{name}_weight": 0.0 for name in ("mask", "color", "laplacian", "flattening")}
    trainer = Trainer(dataset, tmp_path / "run", config.model_copy(update={**alone, "shading_weight": 0.3}))
    row = trainer._train_step()
    assert float(row["loss"]) == pytest.approx(0.3 * float(row["shading"]), rel=1e-4)
    network = trainer.model.network
    moved = {
        name: bool((value.grad != 0).any()) for name, value in network.named_parameters() if value.grad is not None
    }
    assert moved["light_head.weight"] and moved["light_code.0.weight"]
    assert not any(moved[name] for name in moved if name.startswith(("texture_head", "vertex_head", "colours.texture")))


@pytest.mark.parametrize("layout", ["choy", "cub"])
def test_the_layouts_of_others_are_trained_from(layout: str, config: TrainingConfig, tmp_path: Path) -> None:
    if layout == "choy":
        for number in range(4):
            write_rendering(tmp_path, "02691156", f"model{number}", 60 * number)
    folder = tmp_path if layout == "choy" else write_cub(tmp_path)
    Trainer(folder, tmp_path / "run", config.model_copy(update={"steps": 16, "lr": 3e-3})).run()
    losses = torch.tensor([float(row["loss"]) for row in rows_of(tmp_path / "run")])
    assert len(losses) == 16
    assert bool(losses.isfinite().all())
    assert losses[-4:].mean() < 0.8 * losses[:4].mean()


def test_a_run_leaves_log_pictures_and_checkpoint(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    Trainer(dataset, tmp_path / "run", config).run()
    files = sorted(str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert files == ["checkpoint.pt", "losses.csv", "samples/step_000004.png", "samples/step_000006.png"]
    rows = rows_of(tmp_path / "run")
    assert list(rows[0]) == LOG_COLUMNS
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if row["held_out_iou"]] == ["4", "6"]
    for row in rows:
        names = ("mask", "color", "shading", "laplacian", "flattening")
        parts = [getattr(config, f"{name}_weight") for name in names]
        values = [float(row[name]) for name in names]
        total = sum(weight * value for weight, value in zip(parts, values, strict=True))
        assert float(row["loss"]) == pytest.approx(total, rel=1e-4)
    with Image.open(tmp_path / "run/samples/step_000006.png") as picture:
        assert picture.size == (2 * 32, 4 * 32)


def test_the_loaded_model_is_the_trained_one(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    trainer = Trainer(dataset, tmp_path / "run", config)
    trainer.run()
    view = trainer.data.views([0, 3])
    with torch.no_grad():
        expected = trainer.model(view.image, view.world_to_clip)
        for path in (tmp_path / "run", tmp_path / "run" / "checkpoint.pt"):
            assert_same(tuple(load_checkpoint(path)(view.image, view.world_to_clip)), tuple(expected))


def write_resnet(folder: Path) -> tuple[str, dict[str, Tensor]]:
    """A file of weights with statistics that no batch has; its name and content."""
    given = ResNet18("frozen_batch").state_dict()
    given["bn1.running_mean"] = torch.full((64,), 0.1)
    torch.save(given, folder / "given.pth")
    return str(folder / "given.pth"), given


def is_frozen(name: str) -> bool:
    return "bn" in name or "downsample.1" in name


def test_a_resnet_trains_from_given_weights(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    """Its norms stay as they were given, the rest moves on from there; a run that goes on does not begin anew."""
    file, given = write_resnet(tmp_path)
    config = config.model_copy(update={"encoder": "resnet18", "pretrained": file, "steps": 1, "lr": 1e-4})
    Trainer(dataset, tmp_path / "run", config).run()
    Path(file).unlink()
    longer = Trainer(dataset, tmp_path / "run", config.model_copy(update={"steps": 2}), resume=True)
    longer.run()
    trained = longer.model.network.encoder[1].state_dict()
    for name, value in given.items():
        moved = (trained[name] - value).abs().max()
        if is_frozen(name):
            assert moved == 0, name
        else:
            assert 0 < moved <= 2.1e-4, name


def test_images_of_another_size_are_resized_for_the_network(dataset: Path, tmp_path: Path) -> None:
    config = TrainingConfig(steps=1, batch=2, image_size=16, texture_size=32)
    Trainer(dataset, tmp_path / "run", config).run()
    model = load_checkpoint(tmp_path / "run")
    assert (model.network.config.image_size, model.renderer.height, model.renderer.width) == (16, 32, 32)


def test_the_callers_random_numbers_are_left_alone(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    Trainer(dataset, tmp_path / "run", config).run()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_run_that_is_there_is_neither_overwritten_nor_mixed(
    dataset: Path, config: TrainingConfig, tmp_path: Path
) -> None:
    Trainer(dataset, tmp_path / "run", config).run()
    with pytest.raises(DibrError, match=r"output .*run exists already"):
        Trainer(dataset, tmp_path / "run", config)
    with pytest.raises(DibrError, match=r"the run in .*run has batch = 3, got 4"):
        Trainer(dataset, tmp_path / "run", config.model_copy(update={"batch": 4}), resume=True)
    content = read_checkpoint(tmp_path / "run")
    for name, says in (
        ("colour_features", "has colour_features = 0, got 64"),
        ("laplacian_weight", "was begun before there was the setting laplacian_weight"),
    ):
        settings = {key: value for key, value in content["training"]["config"].items() if key != name}
        (tmp_path / name).mkdir()
        older = {**content, "training": {**content["training"], "config": settings}}
        torch.save(older, tmp_path / name / "checkpoint.pt")
        with pytest.raises(DibrError, match=f"the run in .* {says}"):
            Trainer(dataset, tmp_path / name, config, resume=True)
    with pytest.raises(DibrError, match=r"checkpoint .* does not exist"):
        Trainer(dataset, tmp_path / "nothing", config, resume=True)
    longer = Trainer(dataset, tmp_path / "run", config.model_copy(update={"steps": 7}), resume=True)
    longer.run()
    assert [int(row["step"]) for row in rows_of(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_loss_that_is_not_finite_stops_the_run(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    trainer = Trainer(dataset, tmp_path / "run", config)
    with torch.no_grad():
        trainer.model.network.texture_head.colour.bias.fill_(float("nan"))
    with pytest.raises(DibrError, match=r"the loss is nan at step 0: lower lr, now 0\.001"):
        trainer.run()


def train_command(dataset: Path, run: Path, *options: str) -> list[str]:
    return ["-m", "dibr_deploy.cli", "train", "--data", str(dataset), "--output", str(run), *options]


SMALL = ("--batch=2", "--image-size=32", "--texture-size=32")


def start_training(dataset: Path, run: Path, *options: str) -> subprocess.Popen[bytes]:
    """With SIGINT as in a terminal, also where the tests run in the background of a shell, which ignores it there."""
    command = [sys.executable, *train_command(dataset, run, *options)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(condition, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, "training ended early"
        assert time.monotonic() < deadline, "no checkpoint within ten minutes"
        time.sleep(0.05)


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_can_be_resumed(with_signal: signal.Signals, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_training(dataset, run, "--steps=100000", "--checkpoint-every=2", *SMALL)
    try:
        wait_for(lambda: (run / "checkpoint.pt").exists() and len(rows_of(run)) > 5, process)
    finally:
        os.kill(process.pid, with_signal)
        code = process.wait(600)
    assert code == (-signal.SIGKILL if with_signal == signal.SIGKILL else 130)
    content = read_checkpoint(run)
    step = content["training"]["step"]
    assert step >= 4
    config = TrainingConfig(**{**content["training"]["config"], "steps": step + 1})
    Trainer(dataset, run, config, resume=True).run()
    assert [int(row["step"]) for row in rows_of(run)] == list(range(1, step + 2))


def test_a_run_that_was_killed_before_its_first_checkpoint_can_go_on(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_training(dataset, run, "--steps=100000", "--checkpoint-every=100000", *SMALL)
    try:
        wait_for(lambda: (run / "losses.csv").exists() and len(rows_of(run)) >= 1, process)
    finally:
        process.kill()
        process.wait(600)
    assert start_training(dataset, run, "--resume", "--steps=2").wait(600) == 0
    assert [int(row["step"]) for row in rows_of(run)] == [1, 2]


def test_two_processes_train_as_one_with_the_whole_batch(dataset: Path, tmp_path: Path) -> None:
    """Of the colour loss each process sees only its part of the pixels that it is a mean over.

    At the default learning rate a rounding error in the first step grows a thousandfold in ten steps, with one process
    too; at a tenth of it the curves can be compared.
    """
    options = ("--steps=50", "--batch=8", "--image-size=32", "--texture-size=32", "--device=cpu", "--lr=0.0001")
    one, two = train_by_one_and_two(tmp_path, ["train", "--data", str(dataset), *options])
    assert len(one) == 50
    assert float(one[-1]["loss"]) < 0.8 * float(one[0]["loss"])
    assert_close_logs(one, two, ("loss", "mask", "color"), 1e-4)


def test_two_processes_train_a_resnet_as_one(dataset: Path, tmp_path: Path) -> None:
    """At the size that it is meant for, with frozen norms, whose statistics are not those of the batch."""
    file, given = write_resnet(tmp_path)
    options = ("--steps=4", "--batch=2", "--image-size=224", "--texture-size=32", "--device=cpu", "--lr=0.0001")
    encoder = ("--encoder=resnet18", f"--pretrained={file}")
    one, two = train_by_one_and_two(tmp_path, ["train", "--data", str(dataset), *options, *encoder])
    assert float(one[-1]["loss"]) < float(one[0]["loss"])
    assert_close_logs(one, two, ("loss", "mask", "color"), 1e-4)
    for run in ("one", "two"):
        trained = load_checkpoint(tmp_path / run).network.encoder[1].state_dict()
        for name, value in given.items():
            assert torch.equal(trained[name], value) == is_frozen(name), name


def test_a_batch_that_cannot_be_shared_evenly_is_refused(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(DibrError, match="batch must be a multiple of the 2 processes, got 3"):
        Trainer(dataset, tmp_path / "run", config, processes=Processes(0, 2))


def test_reduced_precision_reaches_the_layers_and_nothing_behind_them(
    dataset: Path, config: TrainingConfig, tmp_path: Path
) -> None:
    trainer = Trainer(dataset, tmp_path / "run", config.model_copy(update={"precision": "bfloat16"}))
    seen: list[torch.dtype] = []
    trainer.model.network.light_head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer.run()
    assert seen[0] == torch.bfloat16
    assert {value.dtype for value in trainer.model.network.state_dict().values()} == {torch.float32, torch.int32}
    full = Trainer(dataset, tmp_path / "full", config)
    full.run()
    losses = [[float(row["loss"]) for row in rows_of(tmp_path / name)] for name in ("run", "full")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_a_gpu_without_the_precision_is_refused(
    dataset: Path, config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of one: torch says what it can."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU of 2018")
    reduced = config.model_copy(update={"precision": "bfloat16"})
    with pytest.raises(DibrError, match=r"needs a GPU of compute capability 8\.0 or newer, got a GPU of 2018"):
        Trainer(dataset, tmp_path / "run", reduced, processes=Processes(device=torch.device("cuda")))
    assert not (tmp_path / "run").exists()


def test_tensorboard_reads_what_the_log_says(dataset: Path, config: TrainingConfig, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    Trainer(dataset, tmp_path / "run", config.model_copy(update={"tensorboard": True})).run()
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    rows = rows_of(tmp_path / "run")
    for name in LOG_COLUMNS[1:]:
        wanted = {int(row["step"]): float(row[name]) for row in rows if row[name]}
        actual = {event.step: event.value for event in events.Scalars(name)}
        assert actual == pytest.approx(wanted, rel=1e-6)
    assert [event.step for event in events.Images("samples")] == [4, 6]
