"""The benchmark runs, compares the pictures before it times them, and writes what it prints. No time decides here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.peers import PEERS, offers
from benchmarks.worker import ROOT, PeerFailed, Worker


def test_a_tiny_run_times_every_task_and_writes_page_and_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "benchmarks.json").read_text())
    measured = {(row["peer"], row["task"]) for row in results["timings"]}
    assert measured >= {(peer, task) for peer in ("ours", "torch") for task in suite.OPS}
    assert all(0 < row["cpu"]["lower"] <= row["cpu"]["median"] <= row["cpu"]["upper"] for row in results["timings"])
    assert results["absent"] == {}
    compared = [found for found in results["agreements"] if found["peer"] == "torch"]
    assert len(compared) == 3
    assert all(found["differing"] == 0.0 and found["coverage"] > 0.0 for found in compared)
    assert compared[0]["output_distance"] < 1e-4
    [peak] = results["peaks"]
    assert peak["bytes"] > 0
    page = (tmp_path / "benchmarks.md").read_text()
    assert all(scene in page for scene in {row["scene"] for row in results["timings"]})


@pytest.mark.skipif(importlib.util.find_spec("pytorch3d") is not None, reason="PyTorch3D is installed here")
def test_a_peer_that_is_not_installed_says_so() -> None:
    with pytest.raises(PeerFailed, match="No module named 'pytorch3d'"):
        Worker("PyTorch3D", 1)


def test_a_process_that_ends_is_noticed_and_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "scene.npz"
    suite.smoke().cases[0].spec.scene().save(path)
    worker = Worker("ours", 1)
    worker.process.kill()
    with pytest.raises(PeerFailed, match="ended with exit code"):
        worker.load(path)
    assert worker.ended
    worker.start()
    worker.load(path)
    assert len(worker.time("rasterize", 0.0)) == 1
    worker.close()


def test_every_task_of_every_suite_is_offered_by_somebody() -> None:
    for chosen in (suite.full(), suite.quick(), suite.smoke()):
        for case in (*chosen.cases, *chosen.peaks):
            assert set(case.peers) <= set(PEERS)
            assert all(any(offers(peer, task) for peer in case.peers) for task in case.tasks)
