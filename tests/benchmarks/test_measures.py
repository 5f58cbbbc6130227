"""Clock, memory, spread and exponents, each against something that knows better."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import clock, machine, scenes, suite, targets
from benchmarks.results import Results, Spread, Timing
from benchmarks.targets import Verdict


def test_the_clock_counts_every_thread() -> None:
    spent, done, leave = [], threading.Event(), threading.Event()

    def work() -> None:
        start = time.thread_time()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)
        spent.append(time.thread_time() - start)
        done.set()
        leave.wait()

    watch, own = clock.Stopwatch(), time.thread_time()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(spent) < 2:
        done.wait()
        time.sleep(0.001)
    (found, _), own = watch.stop(), time.thread_time() - own
    leave.set()
    for thread in threads:
        thread.join()
    assert found == pytest.approx(sum(spent) + own, rel=0.05)


def test_the_clock_does_not_count_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the other threads' clocks takes 50 ms here; a call that does nothing takes none of it."""

    def ask() -> float:
        _burn(0.05)
        return 0.0

    monkeypatch.setattr(clock, "cpu_seconds_of_others", ask)
    cpu, wall = clock.Stopwatch().stop()
    assert cpu < 0.01
    assert wall < 0.04


def test_the_peak_sees_what_is_gone_again() -> None:
    size = 64 << 20
    before = clock.restart_peak()
    np.ones(size, np.uint8)
    assert clock.peak_bytes() - before == pytest.approx(size, rel=0.1)


def test_spread_is_of_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(median=3.0, lower=2.0, upper=4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.3])
def test_the_exponent_of_a_power_law(power: float) -> None:
    assert targets.exponent([(n, 3e-9 * n**power) for n in (10, 100, 10000)]) == pytest.approx(power)


def _timing(scene: str, peer: str, threads: int, seconds: float, task: str = "rasterize") -> Timing:
    spread = Spread(seconds, seconds, seconds)
    return Timing(scene, 1280, 512, 1, task, peer, threads, spread, spread, 1)


def test_an_aim_is_met_by_the_ratio_to_as_many_threads() -> None:
    scene = scenes.sphere(1280, 512).name
    rows = [("ours", 1, 4.0), ("ours", 2, 5.0), ("llvmpipe", 1, 10.0), ("llvmpipe", 2, 8.0), ("DEODR", 1, 16.0)]
    results = Results({}, timings=[_timing(scene, *row) for row in rows])
    assert targets.ratio(results, results.timings[1], "llvmpipe") == 5.0 / 8.0
    assert targets.ratio(results, results.timings[1], "DEODR") == 5.0 / 16.0
    assert targets.ratio(results, results.timings[1], "Embree") is None
    judged = {(entry.aim, entry.case): entry for entry in targets.judge(results)}
    one = judged["rasterize, CPU time / llvmpipe's", f"{scene}, 1 thread"]
    assert (one.value, one.outcome) == (0.4, "met")


def test_the_soft_mask_stands_beside_rasterize_with_and_without_culling() -> None:
    scene = scenes.sphere(1280, 512).name
    times = {"soft_mask_backward": 3.0, "rasterize": 1.5, suite.OF_ALL_FACES: 4.0}
    results = Results({}, timings=[_timing(scene, "ours", 1, seconds, task) for task, seconds in times.items()])
    found = {entry.aim.rpartition(" of ")[2]: entry for entry in targets.judge(results) if "soft mask" in entry.aim}
    values = {drawn: (entry.value, entry.bound) for drawn, entry in found.items()}
    assert values == {"front faces": (2.0, 1.5), "all faces": (0.75, 1.5)}


@pytest.mark.parametrize(
    ("value", "outcome"), [(0.5, "met"), (0.51, "not met"), (None, "not measured: it is not installed")]
)
def test_outcomes(value: float | None, outcome: str) -> None:
    assert Verdict("aim", "case", 0.5, value, "it is not installed").outcome == outcome


def test_what_is_absent_is_named_with_its_reason() -> None:
    results = Results({}, absent={"PyTorch3D": "No module named 'pytorch3d'"})
    entries = [entry for entry in targets.judge(results) if "PyTorch3D" in entry.aim]
    assert len(entries) == 2
    assert all(entry.outcome == "not measured: No module named 'pytorch3d'" for entry in entries)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_sphere_fills_its_part_of_the_image(batch: int) -> None:
    """By the closed form: each silhouette is a circle of area 4 * FILL in NDC, wherever the camera stands."""
    scene = scenes.sphere(5120, 64, batch).scene()
    ndc = scene.positions[..., :2].astype(np.float64) / scene.positions[..., 3:]
    radius = np.linalg.norm(ndc, axis=-1).max(1)
    np.testing.assert_allclose(np.pi * radius**2, 4 * scenes.FILL, rtol=5e-3)
    assert len(np.unique(scene.positions.round(4), axis=0)) == batch


@pytest.mark.parametrize("spec", [scenes.soup(50, 64), scenes.slivers(50, 64)])
def test_open_scenes_are_turned_to_the_viewer(spec: scenes.SceneSpec) -> None:
    scene = spec.scene()
    corners = (scene.positions[0, :, :2] / scene.positions[0, :, 3:])[scene.faces].astype(np.float64)
    along, across = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0] > 0).all()


def test_a_saved_scene_is_the_same(tmp_path) -> None:
    scene = scenes.sphere(80, 16, batch=2).scene()
    scene.save(tmp_path / "scene.npz")
    again = scenes.Scene.load(tmp_path / "scene.npz")
    assert (again.name, again.size) == (scene.name, scene.size)
    assert again.positions.tobytes() == scene.positions.tobytes()
    assert again.faces.tobytes() == scene.faces.tobytes()


def test_answers_while_a_request_waits() -> None:
    """Its own counts, one of the moment it left does not."""
    clients = pytest.importorskip("benchmarks.clients", reason="tritonclient is not here")
    asked = clients.Asked([(0.0, 1.0), (1.0, 3.0), (0.5, 2.5), (2.5, 4.0)], refused=0)
    assert asked.answers == [1, 2, 2, 2]
    assert asked.gaps == [1.5, 0.5, 1.0]


def _burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_long_calls_count_threads_that_have_ended() -> None:
    """Long by the wall clock: two threads, one after the other, that are gone at the end."""
    watch = clock.Stopwatch()
    for _ in range(2):
        thread = threading.Thread(target=_burn, args=(0.3,))
        thread.start()
        thread.join()
    cpu, wall = watch.stop()
    assert cpu == pytest.approx(0.6, rel=0.1)
    assert wall > 0.55


def test_other_work_is_what_this_process_and_its_children_did_not_do(tmp_path: Path) -> None:
    """A child counts as other work until it has been waited for."""
    here = machine.Machine(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    before = here.others() * (time.monotonic() - here.start[1])
    child.wait()
    after = here.others() * (time.monotonic() - here.start[1])
    assert (before - after) * os.cpu_count() == pytest.approx(0.5, abs=0.1)


def test_a_run_names_its_commit(tmp_path: Path) -> None:
    assert machine.commit(tmp_path) == machine.UNKNOWN
    (tmp_path / "file").write_text("one")
    author = ["-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init", "-q"], ["add", "file"], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    clean = machine.commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "not of it").touch()
    assert machine.commit(tmp_path) == clean
    (tmp_path / "file").write_text("two")
    assert machine.commit(tmp_path) == f"{clean} with uncommitted changes"


@pytest.mark.parametrize(("load", "others", "disturbed"), [(0.0, 0.0, False), (99.0, 0.0, True), (0.0, 0.9, True)])
def test_a_disturbed_run_says_so(
    load: float, others: float, disturbed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(machine.Machine, "others", lambda _: others)
    description = machine.Machine(tmp_path).description()
    assert (description["disturbed by other work"] != "no") == disturbed
    assert description["cores' time that other processes took"] == f"{others:.0%}"
