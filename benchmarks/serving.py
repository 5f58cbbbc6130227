"""Measure `dibr serve` on this machine, compare it with torch, and write both into docs/serving.md.

    python -m benchmarks.serving [--requests 48] [--row "C++ SDK=outputs.npz"] [--sample sample.npz] [--update-docs]

The parity table compares every way to run one model with torch, on one sample. A way that this script cannot run comes
in by --row, as an .npz file of the outputs by name, for the inputs that --sample writes.

The load is tritonclient's, on loopback, in processes of their own; the model is ResNet-18 at 224x224 with its renderer
at 256x256. What is compared is measured in turns, and given as ratios of medians: absolute times are this machine's.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "serving.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
BATCH, CLIENTS, ROUNDS = 8, 16, 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure dibr serve and compare it with torch.")
    parser.add_argument("--requests", type=int, default=48, help="of the load test, each way (default %(default)s)")
    parser.add_argument("--row", action="append", default=[], metavar="NAME=FILE", help="outputs of another way, .npz")
    parser.add_argument("--sample", type=Path, metavar="FILE", help="write the inputs of the parity table, .npz")
    parser.add_argument("--update-docs", action="store_true", help=f"write into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(Path(folder))
        lines = parity(bundle, arguments.row, arguments.sample)
        lines += overhead(bundle) + load(bundle, arguments.requests) + start(bundle) + installation()
    text = "\n".join([*heading(), *lines])
    print(text)
    if arguments.update_docs:
        update(text)


def heading() -> list[str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    load_average = os.getloadavg()[0]
    return [
        f"Measured {datetime.date.today().isoformat()} at commit {commit} by `python -m benchmarks.serving`, on "
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

    model = whole_model()
    example = (torch.rand(1, 3, INPUT_SIZE, INPUT_SIZE), camera())
    sample = (torch.rand(2, 3, INPUT_SIZE, INPUT_SIZE), camera().repeat(2, 1, 1))
    path = folder / "resnet.zip"
    return to_bundle(model, example, path, photo_input="image", renderer=renderer_of(model), sample_args=sample)


@contextmanager
def serving(bundle: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """Addresses of a `dibr serve` of its own, for HTTP and gRPC."""
    command = [sys.executable, "-m", "dibr_deploy.cli", "serve", f"resnet={bundle}", "--threads", "1"]
    ports = ["--http-port", "0", "--grpc-port", "0", "--queue-limit", "256", "--timeout", "600"]
    process = subprocess.Popen([*command, *ports, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        drain = ThreadPoolExecutor(1)
        drain.submit(process.stderr.read)
        yield f"127.0.0.1:{started['http']}", f"127.0.0.1:{started['grpc']}"
    finally:
        process.terminate()
        process.wait()


def ask(module: Any, client: Any, feed: Mapping[str, np.ndarray]) -> Any:
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, array in feed.items():
        inputs.append(module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return client.infer("resnet", inputs)


# --- The same everywhere?


def parity(bundle: Path, rows: Sequence[str], sample: Path | None) -> list[str]:
    """A table of the largest differences from torch."""
    import tritonclient.grpc
    import tritonclient.http

    from dibr_deploy.runtime import Session
    from dibr_deploy.runtime.bundle import Bundle
    from dibr_deploy.runtime.comparison import compare, read_sample

    feed, expected = read_sample(Bundle(bundle))
    if sample is not None:
        np.savez(sample, **{name: np.asarray(array) for name, array in feed.items()})
    answers: dict[str, Mapping[str, np.ndarray]] = {
        "ONNX Runtime, Python": Session(bundle, "cpu", threads=1).run(**feed)
    }
    with serving(bundle) as (http, grpc):
        for name, module, address in (
            ("dibr serve, HTTP", tritonclient.http, http),
            ("dibr serve, gRPC", tritonclient.grpc, grpc),
        ):
            answer = ask(module, module.InferenceServerClient(address), feed)
            answers[name] = {output: answer.as_numpy(output) for output in expected}
    for row in rows:
        name, _, path = row.rpartition("=")
        with np.load(path) as stored:
            answers[name] = {output: stored[output] for output in expected}
    first = answers["ONNX Runtime, Python"]
    lines = [
        "### The same image everywhere",
        "",
        "Largest difference from torch, where both see the same face; the pixels at which they do not; and whether all "
        "outputs are those of ONNX Runtime in Python, bit for bit.",
        "",
        "| | image | mask | vertices | texture | light | face_index differs | bit for bit | |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for name, outputs in answers.items():
        agreement = compare(expected, outputs)
        by_name = {difference.output: difference for difference in agreement.differences}
        numbers = [f"{by_name[output].largest:.1e}" for output in ("image", "mask", "vertices", "texture", "light")]
        faces = by_name["face_index"]
        same = all(outputs[output].tobytes() == first[output].tobytes() for output in expected)
        verdict = "ok" if agreement.passed else "FAILED"
        cells = [name, *numbers, f"{faces.differing} of {faces.compared:,}", "yes" if same else "no", verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


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
    with serving(bundle) as (http, grpc):
        for name, module, address in (("HTTP", tritonclient.http, http), ("gRPC", tritonclient.grpc, grpc)):
            options = {"network_timeout": 600.0, "connection_timeout": 600.0} if name == "HTTP" else {}
            client = module.InferenceServerClient(address, **options)
            ask(module, client, feed)
            shares = []
            for _ in range(ROUNDS):
                before, began = compute_seconds(http), time.monotonic()
                ask(module, client, feed)
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
            with serving(bundle, *options) as (_, grpc):
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
            ask(tritonclient.grpc, client, feed)
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
        with serving(bundle) as (_, grpc):
            ask(tritonclient.grpc, tritonclient.grpc.InferenceServerClient(grpc), photos(1))
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


def update(text: str) -> None:
    from dibr_deploy.files import write_atomically

    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(PAGE, f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
