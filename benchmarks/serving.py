"""Measure `dibr serve` here, compare every way to run a model with torch, and write both into docs/serving.md.

    python -m benchmarks.serving [--requests 48] [--parity-only] [--update-docs]

The parity table is made from one bundle and one sample by all of doors.NAMES; what is absent here is named as absent.

The load is tritonclient's, on loopback, in processes of their own; the model is ResNet-18 at 224x224 with its renderer
at 256x256. What is compared is measured in turns, and given as ratios of medians: absolute times are this machine's.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

from benchmarks import doors

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "serving.md"
BATCH, CLIENTS, ROUNDS = 8, 16, 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure dibr serve, and compare every way to run a model with torch.")
    parser.add_argument("--requests", type=int, default=48, help="of the load test, each way (default %(default)s)")
    parser.add_argument("--parity-only", action="store_true", help="compare, and measure no time")
    parser.add_argument("--update-docs", action="store_true", help=f"write into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(Path(folder))
        sections = {"parity": parity(bundle, Path(folder))}
        if not arguments.parity_only:
            lines = overhead(bundle) + load(bundle, arguments.requests) + start(bundle) + installation()
            sections["measured"] = "\n".join([*heading(), *lines])
            print(sections["measured"])
    if arguments.update_docs:
        update(sections)


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def heading() -> list[str]:
    load_average = os.getloadavg()[0]
    return [
        f"Measured {datetime.date.today().isoformat()} at commit {commit()} by `python -m benchmarks.serving`, on "
        f"{os.cpu_count()} cores ({platform.machine()}), one thread per operator, with a load average of "
        f"{load_average:.0f} at the end: read ratios, not seconds.",
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
            f"Compared {datetime.date.today().isoformat()} at commit {commit()} by `python -m benchmarks.serving "
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


def compute_seconds(http: str) -> float:
    """What the service has spent in the model so far, by its own metric."""
    text = urllib.request.urlopen(f"http://{http}/metrics").read().decode()
    [found] = re.findall(r'^dibr_compute_seconds_sum\{model="resnet",version="1"\} (\S+)$', text, re.MULTILINE)
    return float(found)


def overhead(bundle: Path) -> list[str]:
    """The client's time beyond the model's, for one request of BATCH images at a time."""
    import tritonclient.grpc
    import tritonclient.http

    feed = photos(BATCH)
    lines = [
        "### What the protocol costs",
        "",
        f"One client, a batch of {BATCH} in one request, all outputs asked for (17 MB). Time at the client beyond the "
        "time in the model, as a share of the latter: the median, and the middle half, of "
        f"{ROUNDS} requests.",
        "",
        "| | overhead | middle half |",
        "|---|---:|---:|",
    ]
    with doors.serving(bundle) as (http, grpc):
        for name, module, address in (("HTTP", tritonclient.http, http), ("gRPC", tritonclient.grpc, grpc)):
            options = {"network_timeout": 600.0, "connection_timeout": 600.0} if name == "HTTP" else {}
            client = module.InferenceServerClient(address, **options)
            doors.ask(module, client, feed)
            shares = []
            for _ in range(ROUNDS):
                before, began = compute_seconds(http), time.monotonic()
                doors.ask(module, client, feed)
                whole = time.monotonic() - began
                inside = compute_seconds(http) - before
                shares.append(100 * (whole - inside) / inside)
            low, middle, high = statistics.quantiles(shares, n=4)
            lines.append(f"| {name} | {middle:.1f} % | {low:.1f} to {high:.1f} % |")
    return [*lines, ""]


def load(bundle: Path, requests: int) -> list[str]:
    """Throughput and latency of many clients with one image each, against the session in a loop."""
    from dibr_deploy.runtime import Session

    one = photos(1)
    session = Session(bundle, "cpu", threads=1)
    session.run(**one)
    results: dict[str, list[tuple[float, list[float]]]] = {}
    ways = {"with batching": ("--max-batch", "8"), "without": ("--max-batch", "1")}
    alone: list[float] = []
    for _ in range(2):  # in turns, so that what else the machine does falls on all
        for name, options in ways.items():
            began = time.monotonic()
            for _ in range(max(requests // 4, 4)):
                session.run(**one)
            alone.append((time.monotonic() - began) / max(requests // 4, 4))
            with doors.serving(bundle, *options) as (_, grpc):
                results.setdefault(name, []).append(from_clients(grpc, one, requests))
    per_run = statistics.median(alone)
    lines = [
        "### Under load",
        "",
        f"{CLIENTS} clients over gRPC, each with one image at a time and the next one when the answer is there, "
        f"{requests} requests. Against calling the session in a loop, of one image, without a server: 1.0 is its "
        "throughput, and its time for one image.",
        "",
        "| | throughput | p50 | p99 |",
        "|---|---:|---:|---:|",
    ]
    for name, runs in results.items():
        throughput = statistics.median(requests / wall for wall, _ in runs) * per_run
        latencies = sorted(seconds / per_run for _, own in runs for seconds in own)
        p50, p99 = latencies[len(latencies) // 2], latencies[min(int(len(latencies) * 0.99), len(latencies) - 1)]
        lines.append(f"| {name} | {throughput:.2f} | {p50:.1f} | {p99:.1f} |")
    lines += [
        "",
        f"The mean latency is {CLIENTS} divided by the throughput, whatever the service does. On a CPU and with one "
        "thread, a batch of 8 takes as long as eight images, so that batching gains nothing here: it is for devices "
        "that are not full with one image. Clients and service share this machine's cores.",
        "",
    ]
    return lines


def from_clients(grpc: str, feed: Mapping[str, np.ndarray], requests: int) -> tuple[float, list[float]]:
    """Seconds in all, and of every request."""
    import tritonclient.grpc

    clients = [tritonclient.grpc.InferenceServerClient(grpc) for _ in range(CLIENTS)]
    for client in clients:
        client.is_server_ready()

    def many(client: Any) -> list[float]:
        seconds = []
        for _ in range(requests // CLIENTS):
            began = time.monotonic()
            doors.ask(tritonclient.grpc, client, feed)
            seconds.append(time.monotonic() - began)
        return seconds

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        latencies = [seconds for own in pool.map(many, clients) for seconds in own]
    return time.monotonic() - began, latencies


# --- What does it take?


def start(bundle: Path) -> list[str]:
    """From the command to the first answer."""
    import tritonclient.grpc

    seconds = []
    for _ in range(3):
        began = time.monotonic()
        with doors.serving(bundle) as (_, grpc):
            doors.ask(tritonclient.grpc, tritonclient.grpc.InferenceServerClient(grpc), photos(1))
            seconds.append(time.monotonic() - began)
    return [
        "### Cold start and size",
        "",
        f"`dibr serve`, with a model of 60 MB, answers {statistics.median(seconds):.1f} s after its start (median of "
        "three starts).",
        "",
    ]


def installation() -> list[str]:
    """Bytes of what `pip install 'dibr_deploy[serve,onnxruntime]'` brings, as it lies here."""
    from packaging.requirements import Requirement

    sizes: dict[str, int] = {}

    def visit(name: str, extras: Sequence[str]) -> None:
        distribution = importlib.metadata.distribution(name)
        key = distribution.metadata["Name"].lower().replace("_", "-")
        if key in sizes and not extras:
            return
        files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
        sizes[key] = sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")
        for text in distribution.requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in extras or ("",)]
            if requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments):
                visit(requirement.name, sorted(requirement.extras))

    visit("dibr_deploy", ["serve", "onnxruntime"])
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
    listed = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in largest)
    return [
        f"`dibr_deploy[serve,onnxruntime]` and all it needs, without torch: {sum(sizes.values()) / 1e6:.0f} MB in "
        f"{len(sizes)} packages ({listed}).",
        "",
    ]


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
