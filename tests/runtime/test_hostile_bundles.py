"""Bundles that nobody should write, drawn at random: one sentence says what is wrong, and nothing of them is loaded.

DIBR_HOSTILE_ITERATIONS cases are shared out to what is cheap in memory and, a few hundredths, what goes through files.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.machinery
import io
import json
import os
import random
import re
import resource
import sys
import types
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_bundles import SAMPLE_FILE, sample, write_model_bundle

from dibr_deploy import _native
from dibr_deploy.errors import DibrError
from dibr_deploy.runtime import Session, tensorrt_backend
from dibr_deploy.runtime import session as session_module
from dibr_deploy.runtime.bundle import Bundle, sha256
from dibr_deploy.runtime.comparison import read_sample
from dibr_deploy.runtime.kinds import is_bundle
from dibr_deploy.runtime.manifest import MANIFEST_FILE, MODEL_FILE, Manifest, parse_manifest

pytestmark = pytest.mark.long

ITERATIONS = int(os.environ.get("DIBR_HOSTILE_ITERATIONS", "50000"))
LONGEST_MESSAGE = 2000
MOST_MEMORY = 256 << 20
"""By which a process may grow, at its highest, over all cases of a test, in bytes."""
ENGINE_FILE = "tensorrt-10.16.1.11-sm89.engine"
PLUGIN = b"a plugin library"
SETTINGS = {"version": "10.16.1.11", "compute_capability": ("8.9",), "flavour": "tensorrt"}
ENGINE = b"ptrt" + bytes(range(256)) * 4

HOSTILE_VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 0.5, 1e308, 2**31 - 1, 2**31, 2**48 - 1, 2**48, 2**63, -(2**63), 2**64, 10**400,
    "", "1", "manifest.json", "model.onnx", "../model.onnx", "/etc/passwd", "a/b", "a\\b", ".", "..", "-rf", "a b",
    "model.onnx\n", "\x00", "\n", "\u2028", "\ud7ff", "x" * 100_000, "%s{0}", "tensorrt", "float32", "float128", "8.9",
    "9" * 5000, "0" * 64, "F" * 64, [], [[]], [1, [2]], [None] * 50, [0] * 8, {}, {"": {}}, {"a\nb": 1}, ["x"] * 9,
]  # fmt: skip
HOSTILE_KEYS = ["", "files", "engines", "\n", "x" * 10_000, "__class__", "model.onnx", "manifest.json", "../x", "0"]


class Tally:
    """What became of the cases of one test."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record
        self.counts: Counter[str] = Counter()
        self._memory = _most_memory()

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for outcome, count in self.counts.items():
            self._record(outcome, count)
        if kind is None:
            assert _most_memory() - self._memory < MOST_MEMORY

    @contextlib.contextmanager
    def case(self, what: object) -> Iterator[None]:
        """Anything but a refusal in one sentence is a failure that names the case."""
        try:
            yield
            self.counts["accepted"] += 1
        except (DibrError, FileNotFoundError) as error:
            said = str(error)
            assert said.isprintable() and 0 < len(said) < LONGEST_MESSAGE, f"{what!r:.2000}: {said!r:.4000}"
            self.counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"{type(error).__name__}: {error}, on {what!r:.4000}") from error


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    with Tally(record_property) as counted:
        yield counted


@pytest.fixture(scope="module")
def folder(model: Path, session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle: a model, an engine and a sample."""
    arrays = [np.zeros([2, *info.shape[1:]], np.float32) for info in session.inputs]
    inputs = {info.name: array for info, array in zip(session.inputs, arrays, strict=True)}
    ranges = {
        info.name: {kind: [size, *info.shape[1:]] for kind, size in (("min", 1), ("opt", 2), ("max", 8))}
        for info in session.inputs
    }
    engine = {"file": ENGINE_FILE, "plugin_sha256": sha256(PLUGIN), "profiles": [ranges], **SETTINGS}
    bundle = write_model_bundle(
        tmp_path_factory.mktemp("hostile") / "bundle", model, inputs, session.run(*arrays), {ENGINE_FILE: ENGINE}
    )
    stated = json.loads((bundle / MANIFEST_FILE).read_bytes())
    stated["engines"] = [json.loads(json.dumps(engine))]
    (bundle / MANIFEST_FILE).write_text(json.dumps(stated))
    Bundle(bundle)
    return bundle


@pytest.fixture(scope="module")
def stated(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST_FILE).read_bytes())


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with every key or index of it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def spoil_value(rng: random.Random, value: dict[str, Any]) -> None:
    """Change one place of a JSON object."""
    all_places = list(places(value))
    container, key = rng.choice(all_places)
    action = rng.randrange(6)
    if action == 0:
        del container[key]
    elif action == 1 and isinstance(container, dict):
        container[rng.choice(HOSTILE_KEYS)] = container.pop(key)
    elif action == 2 and isinstance(container, dict):
        container[rng.choice(HOSTILE_KEYS)] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
    elif action == 3 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        other, other_key = rng.choice(all_places)
        container[key] = copy.deepcopy(rng.choice([*HOSTILE_VALUES, other[other_key]]))


def spoil_bytes(rng: random.Random, content: bytes) -> bytes:
    """Change one stretch of bytes."""
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice([1, 1, 2, 4, 8, 100, len(content)]))
    word = rng.choice([b"\x00\x00", b"\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"PK"])
    middle = rng.choice(
        [
            b"",
            rng.randbytes(end - start),
            rng.randbytes(rng.choice([1, 3, 1000])),
            content[start:end] * 2,
            word,
            bytes([content[start] ^ (1 << rng.randrange(8))]) if start < len(content) else b"\x00",
        ]
    )
    if rng.randrange(8) == 0:
        return content[:start]
    return content[:start] + middle + content[start + (len(middle) if rng.randrange(2) else end - start) :]


def assert_sound(manifest: Manifest) -> None:
    """What may be relied on once a manifest is accepted, in other words than its own."""
    listed = {manifest.model, *(engine.file for engine in manifest.engines)} | {manifest.sample} - {None}
    assert listed <= set(manifest.files) and MANIFEST_FILE not in manifest.files
    for name, entry in manifest.files.items():
        assert name == Path(name).name and name.isascii() and name.isprintable() and not name.startswith((".", "-"))
        assert len(bytes.fromhex(entry.sha256)) == 32 and type(entry.bytes) is int and 0 <= entry.bytes < 2**48
    numbers = (manifest.format_version, manifest.schema_version, manifest.opset, manifest.onnxruntime_api)
    assert all(type(number) is int and 0 < number < 2**31 for number in numbers) and manifest.format_version == 1
    for tensor in (*manifest.inputs, *manifest.outputs):
        assert tensor.name and len(tensor.shape) <= 8
        assert all(size != "" if isinstance(size, str) else 0 <= size < 2**48 for size in tensor.shape)
    for engine in manifest.engines:
        assert all(float(device) > 0 or re.fullmatch(r"0+\.0", device) for device in engine.compute_capability)
        for profile in engine.profiles:
            for shapes in profile.values():
                assert all(a <= b <= c for a, b, c in zip(shapes.min, shapes.opt, shapes.max, strict=True))


def test_values_of_the_manifest(stated: dict[str, Any], tally: Tally) -> None:
    rng = random.Random(1)
    sound = json.dumps(stated)
    for _ in range(ITERATIONS * 6 // 10):
        value = json.loads(sound)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            if value:
                spoil_value(rng, value)
        text = json.dumps(value, ensure_ascii=bool(rng.randrange(2)))
        with tally.case(text):
            manifest = parse_manifest(text.encode(), "b")
            assert_sound(manifest)
            assert parse_manifest(manifest.to_json().encode(), "b") == manifest
    assert min(tally.counts["accepted"], tally.counts["refused"]) > ITERATIONS // 100


def test_bytes_of_the_manifest(stated: dict[str, Any], tally: Tally) -> None:
    rng = random.Random(2)
    texts = [json.dumps(stated).encode(), json.dumps(stated, indent=2).encode()]
    specials = [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xef\xbb\xbf" + texts[0], texts[0].decode().encode("utf-16"),
                b" " * (2 << 20), b"1e999999999", b'"' + b"a" * 100_000, b"nan", b"{}", b"null"]  # fmt: skip
    for index in range(ITERATIONS * 3 // 10):
        content = specials[index] if index < len(specials) else spoil_bytes(rng, rng.choice(texts))
        with tally.case(content):
            assert_sound(parse_manifest(content, "b"))
    assert tally.counts["refused"] > ITERATIONS // 10


def archive_of(folder: Path, compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return stream.getvalue()


def test_archives(folder: Path, tmp_path: Path, tally: Tally) -> None:
    """What can be read of a damaged archive is what the manifest says."""
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    archives = [archive_of(folder, kind) for kind in kinds]
    rng = random.Random(3)
    path = tmp_path / "b.zip"
    for _ in range(ITERATIONS // 25):
        content = rng.choice(archives)
        directory = content.rindex(b"PK\x01\x02")
        if rng.randrange(2):  # its directory alone
            content = content[:directory] + spoil_bytes(rng, content[directory:])
        else:
            content = spoil_bytes(rng, content)
        path.write_bytes(content)
        with tally.case(content):
            is_bundle(path)
            bundle = Bundle(path)
            for name, entry in bundle.manifest.files.items():
                assert sha256(bundle.read(name)) == entry.sha256
    assert tally.counts["refused"] > ITERATIONS // 100


def bombs() -> dict[str, bytes]:
    """Small archives that would be large."""

    def archive(**members: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in members.items():
                opened.writestr(name.replace("_", "."), content)
        return stream.getvalue()

    return {"manifest": archive(manifest_json=b" " * (300 << 20)), "another file": archive(x_onnx=b" " * (300 << 20))}


def test_archives_that_grow(tmp_path: Path, tally: Tally) -> None:
    contents = bombs()
    tally._memory = _most_memory()
    for name, content in contents.items():
        (tmp_path / "b.zip").write_bytes(content)
        with tally.case(name):
            Bundle(tmp_path / "b.zip")
    assert tally.counts == {"refused": len(contents)}


class Loaded(Exception):
    """Something was handed to ONNX Runtime or TensorRT."""


class Memory:
    """A sound manifest with another sample."""

    def __init__(self, bundle: Bundle, content: bytes) -> None:
        self.path, self.manifest, self._content = bundle.path, bundle.manifest, content

    def read(self, name: str) -> bytes:
        return self._content


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def hostile_array(rng: random.Random, content: bytes) -> bytes:
    descr = rng.choice(["'<f4'", "'|O'", "'<f8'", "'V9223372036854775807'", "[('a','<f4')]", "'<M8[s]'", "0", "'U99'"])
    shape = rng.choice(["(2,4,4)", "(2**40,)", "(1099511627776, 1048576)", "(-1,)", "(2,2,True)", "()", "(0," * 9])
    order = rng.choice(["False", "True", "0", "__import__('os').abort()"])
    texts = [f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n", "{" * 500, "(" * 9000]
    return rng.choice([header(rng.choice(texts)) + content[-256:], spoil_bytes(rng, content)])


def test_samples(folder: Path, tally: Tally) -> None:
    """A sample that has the hash of its manifest, which an attacker writes too."""
    rng = random.Random(4)
    bundle = Bundle(folder)
    sound = bundle.read(SAMPLE_FILE)
    inputs, outputs = read_sample(bundle)
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(ITERATIONS // 50):
        if rng.randrange(2):
            content = spoil_bytes(rng, sound)
        else:
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
                spoiled = rng.choice(list(members))
                for name, member in members.items():
                    opened.writestr(name, hostile_array(rng, member) if name == spoiled else member)
            content = stream.getvalue()
        with tally.case(content):
            read = read_sample(Memory(bundle, content))  # type: ignore[arg-type]
            assert [list(arrays) for arrays in read] == [list(inputs), list(outputs)]
            for name, array in {**read[0], **read[1]}.items():
                assert array.dtype == {**inputs, **outputs}[name].dtype
    assert sample(inputs, outputs) is not None
    assert min(tally.counts["accepted"], tally.counts["refused"]) > ITERATIONS // 5000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One on which both doors would open, up to the call that loads bytes: that one tells which bytes."""

    class Backend:
        def __init__(self, model: Any, *_: object, **__: object) -> None:
            raise Loaded(MODEL_FILE, model.content)

    class Engine:
        def __init__(self, checked: Any, bundle: Bundle) -> None:
            raise Loaded(checked.entry.file, checked.content)

    device = types.SimpleNamespace(compute_capability=(8, 9), current=contextlib.nullcontext)
    module = types.ModuleType("tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    module.__version__ = str(SETTINGS["version"])  # type: ignore[attr-defined]
    plugin = tmp_path / "libdibr_tensorrt.so"
    plugin.write_bytes(PLUGIN)
    library_path = _native.library_path
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(session_module, "OnnxRuntimeBackend", Backend)
    monkeypatch.setattr(tensorrt_backend, "LoadedEngine", Engine)
    monkeypatch.setattr(tensorrt_backend, "open_device", lambda number: device)
    monkeypatch.setattr(_native, "library_path", lambda name: plugin if name == plugin.name else library_path(name))


def loaded_by(path: Path, provider: str) -> tuple[str, bytes]:
    try:
        Session(path, provider)
    except Loaded as loaded:
        return loaded.args  # type: ignore[return-value]
    raise AssertionError("the session opened, and nothing was loaded")


@pytest.mark.usefixtures("machine")
def test_a_sound_bundle_is_loaded(folder: Path, model: Path) -> None:
    assert loaded_by(folder, "cpu") == (MODEL_FILE, model.read_bytes())
    assert loaded_by(folder, "tensorrt") == (ENGINE_FILE, ENGINE)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("provider", ["cpu", "tensorrt"])
def test_files_that_changed_are_not_loaded(folder: Path, tmp_path: Path, provider: str, tally: Tally) -> None:
    rng = random.Random(5)
    sound = {file.name: file.read_bytes() for file in folder.iterdir()}
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name, content in sound.items():
        (bundle / name).write_bytes(content)
    for _ in range(ITERATIONS // 100):
        name = rng.choice([MODEL_FILE, ENGINE_FILE, SAMPLE_FILE])
        content = spoil_bytes(rng, sound[name])
        (bundle / name).write_bytes(content)
        with tally.case((name, content)):
            read, bytes_read = loaded_by(bundle, provider)
            assert bytes_read == sound[read]
            assert content == sound[name] or (name != read and len(content) == len(sound[name]))
        (bundle / name).write_bytes(sound[name])
    assert tally.counts["refused"] > ITERATIONS // 200


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("provider", ["cpu", "tensorrt"])
def test_what_the_manifest_must_say_before_anything_is_loaded(
    folder: Path, tmp_path: Path, stated: dict[str, Any], provider: str, tally: Tally
) -> None:
    rng = random.Random(6)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in folder.iterdir():
        (bundle / file.name).write_bytes(file.read_bytes())
    for _ in range(ITERATIONS // 100):
        value = copy.deepcopy(stated)
        spoil_value(rng, value)
        (bundle / MANIFEST_FILE).write_text(json.dumps(value))
        with tally.case(value):
            name, content = loaded_by(bundle, provider)
            manifest = Bundle(bundle).manifest
            if provider == "cpu":
                assert name == MODEL_FILE
                name = manifest.model
            else:
                engine = next(engine for engine in manifest.engines if engine.file == name)
                assert engine.flavour == "tensorrt"
                assert engine.plugin_sha256 == sha256(PLUGIN) or engine.carries_plugin
                assert engine.version == SETTINGS["version"][: len(engine.version)] or engine.version_compatible
                assert "8.9" in engine.compute_capability or engine.hardware_compatible == "ampere_plus" or (
                    not engine.compute_capability
                )  # fmt: skip
            assert manifest.files[name].sha256 == sha256(content)
            assert manifest.schema_version == 1
    assert min(tally.counts["accepted"], tally.counts["refused"]) > ITERATIONS // 5000
