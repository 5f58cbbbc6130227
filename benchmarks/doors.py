"""The same inputs through every way to run one bundle, and a table of the differences from torch.

The C++ SDK is the one that the tests install under build/, run by their program run_bundle; the Triton server is that
of `make setup-triton`. What is not there is absent, and says why; what is there and fails, raises.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dibr_deploy.runtime.comparison import ALLOWED_SHARE, FACE_INDEX, TOLERANCE, compare

ROOT = Path(__file__).resolve().parent.parent
MODEL = "resnet"
SESSION, CPP = "ONNX Runtime, Python", "C++ SDK"
SERVICE = ("dibr serve, HTTP", "dibr serve, gRPC")
TRITON = ("tritonserver, HTTP", "tritonserver, gRPC")
NAMES = (SESSION, CPP, *SERVICE, *TRITON)
REAL_OUTPUTS = ("image", "mask", "vertices", "texture", "light")
"""Of an image-to-mesh model: those with a column of their own."""

Arrays = Mapping[str, np.ndarray]


class Answers(NamedTuple):
    """What every door made of the same inputs: each of NAMES is a key of one of the two."""

    outputs: dict[str, Arrays]
    absent: dict[str, str]
    """What it needs that is not here."""


def ask_all(bundle: Path, feed: Arrays, expected: Arrays, folder: Path) -> Answers:
    """Runs the inputs through every door that is here.

    Args:
        bundle: of any model whose inputs and outputs are those of ``feed`` and ``expected``.
        feed: the inputs by name.
        expected: torch's outputs by name; their ranks alone are used, for outputs to which Triton adds a batch axis.
        folder: an empty one for what the doors need on disk.
    """
    from dibr_deploy.runtime import Session

    answers = Answers({}, {})
    with Session(bundle, "cpu", threads=1) as session:
        answers.outputs[SESSION] = session.run(**feed)
    if missing := [program for program in ("g++", "pkg-config") if shutil.which(program) is None]:
        answers.absent[CPP] = f"{' and '.join(missing)} to build it with"
    else:
        answers.outputs[CPP] = from_cpp(bundle, feed, folder)
    with serving(bundle) as addresses:
        answers.outputs.update(zip(SERVICE, from_server(addresses, MODEL, feed, expected), strict=True))
    if not _tests("triton_repository.server").PROGRAM.exists():
        answers.absent.update(dict.fromkeys(TRITON, "`make setup-triton`"))
    else:
        answers.outputs.update(zip(TRITON, from_triton(bundle, feed, expected, folder), strict=True))
    return answers


def table(expected: Arrays, answers: Answers) -> tuple[list[str], bool]:
    """Lines of Markdown, and whether every door that is here is within DESIGN's tolerances of torch."""
    first = answers.outputs[SESSION]
    lines = [
        f"| | {' | '.join(REAL_OUTPUTS)} | face_index differs | bit for bit | |",
        f"|---|{'---:|' * len(REAL_OUTPUTS)}---:|---|---|",
    ]
    passed = True
    for name, outputs in answers.outputs.items():
        agreement = compare(expected, outputs)
        by_name = {difference.output: difference for difference in agreement.differences}
        numbers = [f"{by_name[output].largest:.1e}" for output in REAL_OUTPUTS]
        faces = by_name[FACE_INDEX]
        same = all(outputs[output].tobytes() == first[output].tobytes() for output in expected)
        verdict = "ok" if agreement.passed else "FAILED"
        cells = [name, *numbers, f"{faces.differing} of {faces.compared:,}", "yes" if same else "no", verdict]
        lines.append(f"| {' | '.join(cells)} |")
        passed &= agreement.passed
    for name, needed in answers.absent.items():
        lines.append(f"| {name} | {' | ' * len(REAL_OUTPUTS)} | | absent: needs {needed} |")
    there = f"All {len(NAMES)} doors were there." if not answers.absent else "Absent doors were not compared."
    lines += [
        "",
        f"{there} ok: face_index differs at no more than {ALLOWED_SHARE:.1%} of the pixels; where it agrees, no number "
        f"differs by more than {TOLERANCE:g}, but for the mask at as many pixels; integers are equal.",
    ]
    return lines, passed


# --- The doors


def from_cpp(bundle: Path, feed: Arrays, folder: Path) -> Arrays:
    """The C++ SDK, built and installed where it is not yet or has changed."""
    sdk = _tests("runtime_cpp.sdk")
    return sdk.run_bundle(sdk.programs(sdk.installed()), bundle, feed, folder / "cpp", threads=1)


@contextmanager
def serving(bundle: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """Addresses of a `dibr serve` of its own, for HTTP and gRPC."""
    command = [sys.executable, "-m", "dibr_deploy.cli", "serve", f"{MODEL}={bundle}", "--threads", "1"]
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


def from_triton(bundle: Path, feed: Arrays, expected: Arrays, folder: Path) -> tuple[Arrays, Arrays]:
    """The real server, on the model with the Python backend that `dibr export --triton` writes."""
    from dibr_deploy.export.triton import to_triton

    batch = max(len(array) for array in feed.values())
    to_triton(bundle, folder / "repository", name=MODEL, max_batch=batch)
    with _tests("triton_repository.server").running(folder / "repository", f"{MODEL}_python") as addresses:
        return from_server(addresses, f"{MODEL}_python", feed, expected)


def from_server(addresses: Sequence[str], model: str, feed: Arrays, expected: Arrays) -> tuple[Arrays, Arrays]:
    """tritonclient's answers over HTTP and over gRPC."""
    import tritonclient.grpc
    import tritonclient.http

    http, grpc = addresses
    answers = []
    for client in (
        tritonclient.http.InferenceServerClient(http, network_timeout=600.0, connection_timeout=600.0),
        tritonclient.grpc.InferenceServerClient(grpc),
    ):
        with client:
            module = tritonclient.http if not answers else tritonclient.grpc
            answer = ask(module, client, feed, model)
        answers.append({name: _of_one_rank(answer.as_numpy(name), array.ndim) for name, array in expected.items()})
    return answers[0], answers[1]


def ask(module: Any, client: Any, feed: Arrays, model: str = MODEL) -> Any:
    """One request of tritonclient's ``module``, for all outputs."""
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, array in feed.items():
        inputs.append(module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return client.infer(model, inputs)


def _of_one_rank(array: np.ndarray, rank: int) -> np.ndarray:
    """Of a constant output, which Triton repeats for every item of the batch, the one."""
    repeated = array.ndim == rank + 1 and len(array) > 0 and (array == array[:1]).all()
    return array[0] if repeated else array


def _tests(name: str) -> Any:
    """A helper of the tests, whose folder is no part of the package."""
    import importlib

    folder = str(ROOT / "tests")
    if folder not in sys.path:
        sys.path.append(folder)  # last: it must hide nothing
    return importlib.import_module(name)
