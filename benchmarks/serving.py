"""Measure `dibr serve` here, compare every way to run a model with torch, and write both into docs/serving.md.

    python -m benchmarks.serving [--requests 320] [--parity-only] [--update-docs]

"What the protocol costs", "Under load", "When the queue is full" and "Cold start and size" of the page come from it:
some 4,000 requests, which take minutes. Where an aim is not met, the page says so, and the exit code is 1.

The parity table is made from one bundle and one sample by all of doors.NAMES; what is absent here is named as absent.

The load is tritonclient's, on loopback, from processes of their own; the model is ResNet-18 at 224x224 with its
renderer at 256x256. What is compared is measured in turns, and given as ratios of medians: absolute times are this
machine's.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

from benchmarks import doors
from benchmarks.clients import PATIENCE, PROTOCOLS, Asked, Clients, client_of
from benchmarks.machine import commit

if TYPE_CHECKING:
    from dibr_deploy.runtime import Session

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "serving.md"
BATCH, ROUNDS, TURNS = 8, 7, 2
PROCESSES, THREADS = 4, 4
CLIENTS = PROCESSES * THREADS
QUEUE = 8
"""Requests that may wait, where there are more clients than that."""
MOST_OVERHEAD = 15.0
"""Aim: per cent of the model's time."""


class Section(NamedTuple):
    """Part of the page."""

    lines: list[str]
    unmet: list[str]
    """Aims that are not met, in words."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure dibr serve, and compare every way to run a model with torch.")
    parser.add_argument(
        "--requests", type=int, default=320, help="of the load test, each way and turn (default %(default)s)"
    )
    parser.add_argument("--parity-only", action="store_true", help="compare, and measure no time")
    parser.add_argument("--update-docs", action="store_true", help=f"write into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    before = heading()
    unmet: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(Path(folder))
        texts = {"parity": parity(bundle, Path(folder))}
        if not arguments.parity_only:
            sections = measure(bundle, arguments.requests)
            texts["measured"] = "\n".join([*before, *(line for section in sections for line in section.lines)])
            unmet = [aim for section in sections for aim in section.unmet]
            print(texts["measured"])
    if arguments.update_docs:
        update(texts)
    if unmet:
        raise SystemExit(f"not met: {'; '.join(unmet)}")


def measure(bundle: Path, requests: int) -> list[Section]:
    protocol = overhead(bundle)
    with Clients(PROCESSES, THREADS) as clients:
        under_load = load(bundle, clients, requests)
        full = overload(bundle, clients, TURNS * requests)
    return [protocol, under_load, full, start(bundle), installation()]


def heading() -> list[str]:
    return [
        f"Measured {datetime.date.today().isoformat()} at commit {commit(ROOT)} by `python -m benchmarks.serving`, on "
        f"{os.cpu_count()} cores ({platform.machine()}), one thread per operator, with a load average of "
        f"{os.getloadavg()[0]:.1f} before it began: read ratios, not seconds.",
        "",
    ]


def export(folder: Path) -> Path:
    """The benchmark's network as a bundle."""
    import torch

    from benchmarks.network import INPUT_SIZE, camera, whole_model
    from dibr_deploy.export import to_bundle
    from dibr_deploy.export.stages import renderer_of
    from dibr_deploy.export.views import cameras, noise

    model = whole_model()
    example = (torch.rand(1, 3, INPUT_SIZE, INPUT_SIZE), camera())
    pictures = noise(2, INPUT_SIZE)
    sample = (pictures, cameras(model, pictures))
    path = folder / "resnet.zip"
    return to_bundle(model, example, path, photo_input="image", renderer=renderer_of(model), sample_args=sample)


# --- The same everywhere?


def parity(bundle: Path, folder: Path) -> str:
    """A table of the largest differences from torch. Ends the program where a door differs by more than it may."""
    from dibr_deploy.runtime.bundle import Bundle
    from dibr_deploy.runtime.comparison import read_sample

    feed, expected = read_sample(Bundle(bundle))
    lines, passed = doors.table(expected, doors.ask_all(bundle, feed, expected, folder))
    text = "\n".join(
        [
            f"Compared {datetime.date.today().isoformat()} at commit {commit(ROOT)} by `python -m benchmarks.serving "
            f"--parity-only`, on {os.cpu_count()} cores ({platform.machine()}): the ResNet-18 model below, from one "
            "bundle, with a batch of two pictures of noise and two cameras.",
            "",
            "Largest difference from torch, where both see the same face; the pixels at which they do not; and whether "
            "all outputs are those of ONNX Runtime in Python, bit for bit.",
            "",
            *lines,
        ]
    )
    print(text)
    if not passed:
        raise SystemExit("a door differs from torch by more than it may")
    return text


# --- How much time?


def photos(batch: int) -> dict[str, np.ndarray]:
    from benchmarks.network import INPUT_SIZE, camera

    pixels = np.random.default_rng(0).integers(0, 256, (batch, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    return {"input_image": pixels, "world_to_clip": camera().numpy().repeat(batch, 0)}


def metric(http: str, name: str) -> float:
    """One of the service's own, summed over its other labels."""
    text = urllib.request.urlopen(f"http://{http}/metrics").read().decode()
    return sum(map(float, re.findall(rf'^dibr_{name}\{{model="resnet",.*\}} (\S+)$', text, re.MULTILINE)))


def overhead(bundle: Path) -> Section:
    """The client's time beyond the model's, for one request of BATCH images at a time."""
    feed = photos(BATCH)
    lines = [
        "### What the protocol costs",
        "",
        f"One client, a batch of {BATCH} in one request, all outputs asked for (17 MB). Time at the client beyond the "
        "time in the model, as a share of the latter: the median, and the middle half, of "
        f"{ROUNDS} requests. The time in the model is the service's own `dibr_compute_seconds`: the session's run, and "
        "what joins requests to a batch and splits its outputs, though one request alone has nothing to join or split. "
        f"The aim is less than {MOST_OVERHEAD:.0f} %.",
        "",
        "| | overhead | middle half | |",
        "|---|---:|---:|---|",
    ]
    unmet = []
    with doors.serving(bundle) as addresses:
        for protocol, address in zip(PROTOCOLS, addresses, strict=True):
            module, client = client_of(protocol, address)
            doors.ask(module, client, feed)
            shares = []
            for _ in range(ROUNDS):
                before, began = metric(addresses[0], "compute_seconds_sum"), time.monotonic()
                doors.ask(module, client, feed)
                whole = time.monotonic() - began
                inside = metric(addresses[0], "compute_seconds_sum") - before
                shares.append(100 * (whole - inside) / inside)
            low, middle, high = statistics.quantiles(shares, n=4)
            holds = middle < MOST_OVERHEAD
            lines.append(f"| {protocol} | {middle:.1f} % | {low:.1f} to {high:.1f} % | {met(holds)} |")
            if not holds:
                unmet.append(f"{protocol} costs {middle:.1f} % of the model's time, not under {MOST_OVERHEAD:.0f} %")
    return Section([*lines, ""], unmet)


def load(bundle: Path, clients: Clients, requests: int) -> Section:
    """Throughput and latency of many clients with one image each, against the session in a loop."""
    from dibr_deploy.runtime import Session

    one = photos(1)
    session = Session(bundle, "cpu", threads=1)
    session.run(**one)
    runs: dict[tuple[str, str], list[Asked]] = {}
    ways = {"with batching": ("--max-batch", "8"), "without": ("--max-batch", "1")}
    alone: list[float] = []
    for _ in range(TURNS):  # so that what else the machine does falls on all
        for way, options in ways.items():
            alone += timed_runs(session, one, max(requests // 8, 4))
            with doors.serving(bundle, *options) as addresses:
                for protocol, address in zip(PROTOCOLS, addresses, strict=True):
                    asked = clients.ask(protocol, address, one, max(requests // clients.count, 1))
                    if asked.refused:
                        raise SystemExit(f"{asked.refused} requests were refused, which the queue had place for")
                    runs.setdefault((protocol, way), []).append(asked)
    per_run = statistics.median(alone)
    lines = [
        "### Under load",
        "",
        f"{clients.count} clients in {PROCESSES} processes, each with one image at a time and the next one when the "
        f"answer is there: {sum(len(asked.spans) for asked in runs['gRPC', 'without'])} requests in {TURNS} turns for "
        "each line. Against calling the session in a loop, of one image, without a server: 1.0 is its throughput, and "
        "its time for one image.",
        "",
        "| | throughput | p50 | p99 |",
        "|---|---:|---:|---:|",
    ]
    for (protocol, way), turns in sorted(runs.items()):
        throughput = statistics.median(len(asked.spans) / asked.wall for asked in turns) * per_run
        p50, p99 = percentiles([seconds / per_run for asked in turns for seconds in asked.seconds])
        lines.append(f"| {protocol}, {way} | {throughput:.2f} | {p50:.1f} | {p99:.1f} |")
    lines += [
        "",
        f"The mean latency is {clients.count} divided by the throughput, whatever the service does. On a CPU and with "
        "one thread, a batch of 8 takes as long as eight images, so that batching gains nothing here: it is for "
        "devices that are not full with one image. Clients and service share this machine's cores.",
        "",
    ]
    return Section(lines, [])


def timed_runs(session: Session, feed: Mapping[str, np.ndarray], count: int) -> list[float]:
    """Seconds of each."""
    times = [time.monotonic()]
    for _ in range(count):
        session.run(**feed)
        times.append(time.monotonic())
    return [after - before for before, after in itertools.pairwise(times)]


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]


def overload(bundle: Path, clients: Clients, requests: int) -> Section:
    """What those wait for that are let in while the queue is full. Ends the program where the counts do not agree."""
    most = QUEUE + 2
    lines = [
        "### When the queue is full",
        "",
        f"{clients.count} clients in {PROCESSES} processes, each with one image at a time, a queue of {QUEUE}, no "
        f"batching. A client that is refused tries again after {1000 * PATIENCE:.0f} ms. Of those that were let in: "
        "how many answers the service gave while they waited, their own included, and latencies, in mean runs of one "
        "image "
        "(`dibr_compute_seconds`). One run may end while the request is on its way, one be under way when it comes, "
        f"{QUEUE - 1} wait before, and then there is its own: {most} bound the wait. In time, p99 is to be within "
        f"{most} runs that are slow, as the 99th percentile of the times between two answers is, and "
        f"{MOST_OVERHEAD:.0f} % for the protocol. (Within nine mean runs and {MOST_OVERHEAD:.0f} %, 10.3, it "
        "is not always: clients that are refused and ask again take their share of this machine's cores.)",
        "",
        "| | answered | refused | p99 in answers | p50 | p99 | slow run | bound of p99 | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    unmet = []
    for index, protocol in enumerate(PROTOCOLS):
        with doors.serving(bundle, "--max-batch", "1", "--queue-limit", str(QUEUE)) as addresses:
            asked = clients.ask(protocol, addresses[index], photos(1), max(requests // clients.count, 1))
            mean = mean_run(addresses[0], asked)
        p50, p99 = percentiles([seconds / mean for seconds in asked.seconds])
        _, answers = percentiles(asked.answers)
        _, slow = percentiles([seconds / mean for seconds in asked.gaps])
        bound = most * slow * (1 + MOST_OVERHEAD / 100)
        holds = answers <= most and p99 <= bound
        lines.append(
            f"| {protocol} | {len(asked.spans)} | {asked.refused} | {answers} | {p50:.1f} | {p99:.1f} | {slow:.2f} | "
            f"{bound:.1f} | {met(holds)} |"
        )
        if not holds:
            unmet.append(
                f"p99 over {protocol} with a full queue is {answers} answers and {p99:.1f} runs, not within {most} and "
                f"{bound:.1f}"
            )
    lines += [
        "",
        "Every refusal was 429 or RESOURCE_EXHAUSTED. The service's own counters say the same of those that were "
        "answered, refused and run: none was lost, and none answered twice.",
        "",
    ]
    return Section(lines, unmet)


def mean_run(http: str, asked: Asked) -> float:
    """Seconds, as the service has counted them. Ends the program where it has not counted what its clients have."""
    answered, runs = len(asked.spans), metric(http, "compute_seconds_count")
    counted = {
        "answered": (answered, metric(http, "requests_total")),
        "run": (answered, runs),
        "refused": (asked.refused, metric(http, "request_failures_total")),
    }
    if wrong := {name: pair for name, pair in counted.items() if pair[0] != pair[1]}:
        raise SystemExit(f"the clients and the service count differently: {wrong}")
    return metric(http, "compute_seconds_sum") / runs


def met(holds: bool) -> str:
    return "met" if holds else "not met"


# --- What does it take?


def start(bundle: Path) -> Section:
    """From the command to the first answer."""
    import tritonclient.grpc

    served, alone = [], []
    for _ in range(3):
        began = time.monotonic()
        with doors.serving(bundle) as (_, grpc):
            doors.ask(tritonclient.grpc, tritonclient.grpc.InferenceServerClient(grpc), photos(1))
            served.append(time.monotonic() - began)
        alone.append(session_start(bundle))
    lines = [
        "### Cold start and size",
        "",
        f"With a model of 60 MB: `dibr serve` answers {statistics.median(served):.1f} s after its start, and a Python "
        f"program with a `Session` of its own has its first outputs {statistics.median(alone):.1f} s after its start "
        "(medians of three starts, with one thread).",
        "",
    ]
    return Section(lines, [])


def session_start(bundle: Path) -> float:
    """Seconds that a program takes which opens the bundle, runs it once, and ends."""
    inputs = [f"np.zeros({array.shape}, np.{array.dtype})" for array in photos(1).values()]
    program = (
        "import sys, numpy as np\nfrom dibr_deploy.runtime import Session\n"
        f"Session({str(bundle)!r}, 'cpu', threads=1).run({', '.join(inputs)})\nassert 'torch' not in sys.modules\n"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.monotonic() - began


def installation() -> Section:
    """How large the runtime is, without and with the service."""
    lines = []
    for extras in (["onnxruntime"], ["serve", "onnxruntime"]):
        sizes = installed_sizes(extras)
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
        listed = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in largest)
        lines += [
            f"`dibr_deploy[{','.join(extras)}]` and all it needs, without torch: {sum(sizes.values()) / 1e6:.0f} MB in "
            f"{len(sizes)} packages ({listed}).",
            "",
        ]
    return Section(lines, [])


def installed_sizes(extras: Sequence[str]) -> dict[str, int]:
    """Bytes of what pip brings for the package with these extras, by package, as it lies here."""
    from packaging.requirements import Requirement

    sizes: dict[str, int] = {}

    def visit(name: str, extras: Sequence[str]) -> None:
        distribution = importlib.metadata.distribution(name)
        key = distribution.metadata["Name"].lower().replace("_", "-")
        if key in sizes and not extras:
            return
        files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
        if key == "dibr-deploy":
            files += _left_in_the_checkout(distribution)
        sizes[key] = sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")
        for text in distribution.requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in extras or ("",)]
            if requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments):
                visit(requirement.name, sorted(requirement.extras))

    visit("dibr_deploy", extras)
    return sizes


def _left_in_the_checkout(distribution: importlib.metadata.Distribution) -> list[Path]:
    """Files of our package that an editable installation uses where they lie, and does not list."""
    if '"editable": true' not in (distribution.read_text("direct_url.json") or ""):
        return []
    folders = [
        ROOT / "dibr_deploy",
        ROOT / "export",
        *(path for path in (ROOT / "runtime").iterdir() if path.name != "cpp"),
    ]
    return [file for folder in folders for file in (folder.rglob("*") if folder.is_dir() else [folder])]


def update(sections: Mapping[str, str]) -> None:
    """Replaces the sections of the page between marks of their names."""
    from dibr_deploy.files import write_atomically

    page = PAGE.read_text()
    for name, text in sections.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{text}\n{end}{after}"
    write_atomically(PAGE, page)


if __name__ == "__main__":
    main()
