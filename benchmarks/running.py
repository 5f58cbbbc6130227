"""Runs a suite: starts the peers, compares their pictures, and measures those that agree in turns."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from . import agreement, peers, scenes
from .machine import Machine, cores
from .results import REFERENCE, Agreement, Peak, Results, Spread, Timing
from .scenes import Scene
from .suite import OURS, Case, Suite, thread_counts
from .worker import ROOT, PeerFailed, Worker

UNLIKE_OURS = ("ONNX Runtime",)
"""Peers whose tasks have no picture to compare; other tests compare this door with torch, bit by bit."""
MOST_DISTANCE = 1e-3
"""Of outputs and gradients of the torch reference, relative: it sums in float32 in another order."""
ENOUGH = 5.0
"""Wall seconds of calls after which a task of a peer is not timed again on a scene."""

Workers = dict[tuple[str, int], Worker]
Seconds = dict[tuple[str, str, int], list[tuple[float, float]]]


def run(suite: Suite, folder: Path) -> Results:
    """Measure everything. ``folder`` takes the scenes; nothing in it is needed afterwards."""
    results, machine = Results(), Machine(ROOT)
    if machine.is_busy():
        _say("This machine is busy with other things: wall times and those of several threads will mean little.")
    workers = _start(suite, results)
    try:
        for case in suite.cases:
            _run_case(case, suite, workers, results, folder)
    finally:
        for worker in workers.values():
            worker.close()
    for case in suite.peaks:
        _measure_peaks(case, results, folder)
    results.machine = machine.description()
    return results


def _start(suite: Suite, results: Results) -> Workers:
    workers: Workers = {}
    everybody = {peer: None for case in suite.cases for peer in case.peers}
    every_count = any(case.all_threads for case in suite.cases)
    for peer in everybody:
        for threads in _threads(peer, every_count):
            try:
                workers[peer, threads] = Worker(peer, threads)
            except PeerFailed as error:
                results.absent[peer] = str(error)
                _say(f"{peer} does not take part: {error}")
                break
            results.versions[peer] = workers[peer, threads].version
    if REFERENCE not in workers:
        raise SystemExit(f"without our own ops there is nothing to compare: {results.absent[REFERENCE[0]]}")
    return workers


def _threads(peer: str, every_count: bool) -> list[int]:
    offered = peers.peer_class(peer)
    if not offered.threaded:
        return [1]
    counts = thread_counts() if every_count and peer in OURS else sorted({1, cores()})
    return [count for count in counts if count >= offered.least_threads]


def _run_case(case: Case, suite: Suite, workers: Workers, results: Results, folder: Path) -> None:
    _say(case.spec.name)
    try:
        scene = case.spec.scene()
    except Exception as error:
        reason = str(error).replace(str(Path.home()), "~")
        results.absent[case.spec.name] = f"the scene could not be made: {reason}"
        _say(f"  {results.absent[case.spec.name]}")
        return
    path = folder / "scene.npz"
    scene.save(path)
    taking_part = {
        (peer, threads): worker
        for (peer, threads), worker in workers.items()
        if peer in case.peers and threads in _threads(peer, case.all_threads)
    }
    admitted = _admit(scene, path, taking_part, case, results)
    seconds = _take_turns(scene, path, admitted, case, suite, results)
    for (task, peer, threads), taken in seconds.items():
        results.timings.append(_timing(scene, task, peer, threads, taken))
    for (peer, threads), worker in admitted.items():
        if threads == 1:
            _ask_facts(peer, worker, results)


def _ask_facts(peer: str, worker: Worker, results: Results) -> None:
    try:
        results.facts |= {f"{peer}: {name}": value for name, value in worker.facts().items()}
    except PeerFailed as error:
        results.absent[f"other figures of {worker.name}"] = str(error)


def _take_turns(scene: Scene, path: Path, workers: Workers, case: Case, suite: Suite, results: Results) -> Seconds:
    """CPU and wall seconds by task, peer and threads; every other round goes the other way around."""
    seconds: Seconds = defaultdict(list)
    for turn in range(suite.rounds):
        for task in case.tasks:
            for (peer, threads), worker in list(workers.items())[:: 1 if turn % 2 == 0 else -1]:
                note = _note(scene.name, worker, task)
                if not peers.offers(peer, task) or note in results.absent:
                    continue
                if sum(wall for _, wall in seconds[task, peer, threads]) > ENOUGH:
                    continue
                try:
                    taken = worker.time(task, suite.seconds)
                except PeerFailed as error:
                    results.absent[note] = str(error)
                    _say(f"  {worker.name} has no {task}: {error}")
                    _revive(worker, path)
                    continue
                seconds[task, peer, threads] += taken
    return seconds


def _revive(worker: Worker, path: Path) -> None:
    if worker.ended:
        worker.start()
        worker.load(path)


def _admit(scene: Scene, path: Path, workers: Workers, case: Case, results: Results) -> Workers:
    """Those workers that draw the same picture as ours; the others are named as absent, with the reason."""
    admitted: Workers = {}
    ours: np.ndarray | None = None
    for (peer, threads), worker in workers.items():
        try:
            worker.load(path)
            if peer not in UNLIKE_OURS:
                theirs = worker.face_index(path.with_name("face_index.npy"))
                ours = theirs if (peer, threads) == REFERENCE else ours
                if ours is None:
                    raise PeerFailed("there is no picture of ours to compare with")
                results.agreements.append(_compare(scene, ours, theirs, worker, workers, case, path))
                _refuse_differing(results.agreements[-1])
        except PeerFailed as error:
            results.absent[_note(scene.name, worker)] = str(error)
            _say(f"  {worker.name} is not timed: {error}")
            if worker.ended:
                worker.start()
            continue
        admitted[peer, threads] = worker
    return admitted


def _compare(
    scene: Scene, ours: np.ndarray, theirs: np.ndarray, worker: Worker, workers: Workers, case: Case, path: Path
) -> Agreement:
    differing, unexplained = agreement.differing(scene, ours, theirs)
    distance = None
    if worker.peer == "torch":
        tasks = [task for task in case.tasks if task != "rasterize" and peers.offers(worker.peer, task)]
        distance = max((_distance(task, workers[REFERENCE], worker, path) for task in tasks), default=None)
    coverage = float((ours >= 0).mean())
    return Agreement(scene.name, worker.peer, worker.threads, coverage, differing, unexplained, distance)


def _distance(task: str, ours: Worker, theirs: Worker, path: Path) -> float:
    """Largest relative distance between what a task gives here and there."""
    file = path.with_name("outputs.npz")
    pairs = zip(ours.outputs(task, file), theirs.outputs(task, file), strict=True)
    return max(float(np.linalg.norm(a.ravel() - b.ravel()) / np.linalg.norm(a)) for a, b in pairs)


def _refuse_differing(found: Agreement) -> None:
    if found.unexplained:
        raise PeerFailed(f"its picture differs from ours in {found.unexplained} pixels that are not at edges")
    if (found.output_distance or 0.0) > MOST_DISTANCE:
        raise PeerFailed(f"its outputs differ from ours by {found.output_distance:.1e}")


def _timing(scene: Scene, task: str, peer: str, threads: int, taken: list[tuple[float, float]]) -> Timing:
    cpu, wall = (Spread.of(list(column)) for column in zip(*taken, strict=True))
    return Timing(
        scene.name, len(scene.faces), scene.size, scene.batch, task, peer, threads, cpu, wall, calls=len(taken)
    )


def _measure_peaks(case: Case, results: Results, folder: Path) -> None:
    warm_up, path = folder / "small.npz", folder / "scene.npz"
    scenes.sphere(80, 32).scene().save(warm_up)
    scene = case.spec.scene()
    scene.save(path)
    pixels = scene.batch * scene.size**2
    needed = scene.positions.nbytes + scene.faces.nbytes + pixels * (4 + 12 + 4)
    for peer in case.peers:
        for task in case.tasks:
            if peer in results.absent or not peers.offers(peer, task):
                continue
            _say(f"memory of {peer}, {task}, {scene.name}")
            worker = Worker(peer, 1, keep_memory=False)
            try:
                worker.peak(warm_up, task)
                results.peaks.append(Peak(scene.name, task, peer, worker.peak(path, task), needed))
            except PeerFailed as error:
                results.absent[f"memory of {_note(scene.name, worker, task)}"] = str(error)
            finally:
                worker.close()


def _note(scene: str, worker: Worker, task: str | None = None) -> str:
    return f"{worker.name} on {scene}" + (f", {task}" if task else "")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
