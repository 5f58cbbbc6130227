"""Bundles: what is written is what is read, whole or not at all, and anything else is refused in one sentence."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from runtime_bundles import MODEL, manifest_of

from dibr_deploy import files
from dibr_deploy.errors import DibrError
from dibr_deploy.runtime.bundle import MAX_ZIP_RATIO, UNCHECKED_BYTES, Bundle, entries, write_bundle
from dibr_deploy.runtime.kinds import is_bundle
from dibr_deploy.runtime.manifest import FORMAT_VERSION, MAX_BYTES, Engine, Manifest, Profile, parse_manifest

FILES = {"model.onnx": MODEL, "model.engine": b"\x00" * 5000, "empty.bin": b""}
ENGINE = {
    "file": "model.engine",
    "flavour": "tensorrt",
    "version": "10.16.1.11",
    "compute_capability": ("8.9",),
    "plugin_sha256": "0" * 64,
}
KINDS = ["bundle", "bundle.zip"]


@pytest.fixture(params=KINDS, ids=["folder", "zip"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def write(path: Path, **values: Any) -> Path:
    return write_bundle(path, manifest_of(FILES, **values), FILES)


def repack(path: Path, change, compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip bundle whose members, by name, went through ``change``."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in change(members):
            archive.writestr(name, content)
    return path


def tamper(path: Path, name: str, content: bytes | None) -> None:
    """Replace or remove a file of a bundle of either kind."""
    if path.is_dir():
        (path / name).unlink()
        if content is not None:
            (path / name).write_bytes(content)
    else:
        replaced = [] if content is None else [(name, content)]
        repack(path, lambda members: [member for member in members if member[0] != name] + replaced)


def raw_manifest(**changes: Any) -> dict[str, Any]:
    return {**json.loads(manifest_of(FILES).to_json()), **changes}


def refusal(content: object) -> str:
    """What ``parse_manifest`` says about a manifest, as bytes or as what JSON stands for."""
    with pytest.raises(DibrError) as caught:
        parse_manifest(content if isinstance(content, bytes) else json.dumps(content).encode(), "b")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(path: Path) -> None:
    profile = Profile(min=(1, 3), opt=(4, 3), max=(16, 3))
    engine = Engine(**ENGINE, profiles=({"x": profile},))
    manifest = manifest_of(FILES, engines=(engine,))
    assert write_bundle(path, manifest, FILES) == path
    bundle = Bundle(path)
    assert bundle.manifest == manifest
    assert {name: bundle.read(name) for name in FILES} == FILES
    assert is_bundle(path)


def test_the_manifest_is_what_other_tools_can_check(path: Path) -> None:
    """Standard JSON, and the hashes are those of sha256sum."""
    folder = write(path)
    if folder.suffix == ".zip":
        zipfile.ZipFile(folder).extractall(folder := folder.with_suffix(""))
    stated = json.loads((folder / "manifest.json").read_text())
    listed = "".join(f"{entry['sha256']}  {name}\n" for name, entry in stated["files"].items())
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet"], cwd=folder, input=listed, text=True, check=True)


def test_a_folder_packed_by_other_programs_is_a_bundle(tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "bundle").iterdir():
            archive.write(file, file.name)
    assert {name: Bundle(packed).read(name) for name in FILES} == FILES


@pytest.mark.parametrize("name", ["model.onnx", "text.zip", "nothing.zip"])
def test_what_is_no_bundle(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name != "nothing.zip":
        file.write_bytes(MODEL + (b"PK\x05\x06" + bytes(18) if name == "model.onnx" else b""))
    assert not is_bundle(file)


def test_a_bundle_is_replaced_whole(path: Path) -> None:
    write(path)
    other = {"model.onnx": b"another"}
    write_bundle(path, manifest_of(other), other)
    assert Bundle(path).read("model.onnx") == b"another"
    assert Bundle(path).manifest.files.keys() == other.keys()
    assert not (path / "model.engine").exists()
    assert os.listdir(path.parent) == [path.name]


def test_a_bundle_behind_a_link_is_replaced_where_it_is(path: Path) -> None:
    write(path)
    link = path.with_name(f"link{path.suffix}")
    link.symlink_to(path)
    other = {"model.onnx": b"another"}
    write_bundle(link, manifest_of(other), other)
    assert link.is_symlink()
    assert Bundle(path).read("model.onnx") == b"another"


@pytest.mark.parametrize("exists", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("failing", [0, 1, 3])
def test_a_failure_while_writing_leaves_what_was_there(
    path: Path, exists: bool, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at one of the files."""
    if exists:
        write(path)
    left = iter(range(failing))

    def full(original):
        def write_some(*arguments):
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments)

        return write_some

    monkeypatch.setattr(Path, "write_bytes", full(Path.write_bytes))
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full(zipfile.ZipFile.writestr))
    other = {"model.onnx": b"another", "a": b"a", "b": b"b"}
    with pytest.raises(OSError, match="No space left"):
        write_bundle(path, manifest_of(other), other)
    monkeypatch.undo()
    assert os.listdir(path.parent) == ([path.name] if exists else [])
    assert not exists or Bundle(path).read("model.onnx") == MODEL


class NoExchange:
    """A C library that cannot swap two paths."""

    def __init__(self, *_: object, **__: object) -> None: ...


def test_without_an_exchange_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "bundle")
    monkeypatch.setattr(files.ctypes, "CDLL", NoExchange)
    other = {"model.onnx": b"another"}
    write_bundle(path, manifest_of(other), other)
    assert Bundle(path).read("model.onnx") == b"another"
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if Path(target) == path and not self.name.endswith(".replaced"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(OSError, match="Input/output error"):
        write(path)
    assert Bundle(path).read("model.onnx") == b"another"
    assert os.listdir(tmp_path) == [path.name]


def test_a_reader_finds_a_bundle_at_any_time(path: Path) -> None:
    """Another process replaces it, each time with another file: what is opened here is one of them, never none, and
    what is read of it is its own or an error."""
    write(path)
    code = (
        "import sys; from pathlib import Path\n"
        "sys.path.append(sys.argv[2])\n"
        "from runtime_bundles import manifest_of\n"
        "from dibr_deploy.runtime.bundle import Bundle, write_bundle\n"
        "old = Bundle(sys.argv[1])\n"
        "files = {name: old.read(name) for name in old.manifest.files}\n"
        "for turn in range(300):\n"
        "    files['model.onnx'] = f'turn {turn}'.encode()\n"
        "    write_bundle(Path(sys.argv[1]), manifest_of(files, producer=f'turn {turn}'), files)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path), str(Path(__file__).parents[1])])
    producers, read = set(), 0
    while writer.poll() is None:
        bundle = Bundle(path)
        producers.add(bundle.manifest.producer)
        with contextlib.suppress(DibrError):
            content = bundle.read("model.onnx")
            read += bundle.manifest.producer == content.decode(errors="replace")
            assert content in (MODEL, bundle.manifest.producer.encode())
    assert writer.returncode == 0
    assert len(producers) > 3 and read > 3


@pytest.mark.parametrize(
    ("name", "content"),
    [("bundle", b"a file"), ("bundle.zip", b"no zip file"), ("bundle", None), ("bundle.zip", None)],
)
def test_something_else_is_not_replaced(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
        (path / "letters.txt").write_text("dear")
    else:
        path.write_bytes(content)
    with pytest.raises(DibrError, match=r"would replace something that is no bundle: choose another name, or remove"):
        write(path)
    assert path.read_bytes() == content if content is not None else (path / "letters.txt").exists()


def test_a_zip_file_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.png", b"pixels")
    with pytest.raises(DibrError, match="would replace something that is no bundle"):
        write(path)


def test_no_folder_to_write_into(tmp_path: Path) -> None:
    with pytest.raises(DibrError, match=r"bundle .*none/b.zip: the folder .*none does not exist"):
        write(tmp_path / "none" / "b.zip")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bundle .*none does not exist"):
        Bundle(tmp_path / "none")


def test_neither_folder_nor_zip(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"text")
    with pytest.raises(DibrError, match=r"bundle .*b is neither a folder nor a zip file"):
        Bundle(tmp_path / "b")


@pytest.mark.parametrize("name", ["model.onnx", "model.engine", "empty.bin", "manifest.json"])
def test_a_missing_file(path: Path, name: str) -> None:
    tamper(write(path), name, None)
    with pytest.raises(DibrError, match=rf"bundle .* has no {name}: it must be what `dibr export` writes"):
        Bundle(path)


@pytest.mark.parametrize("content", [MODEL + b"!", MODEL[:-1], b""], ids=["longer", "shorter", "empty"])
def test_a_file_of_another_length(path: Path, content: bytes) -> None:
    tamper(write(path), "model.onnx", content)
    with pytest.raises(DibrError, match=rf"model.onnx has {len(content)} bytes, but manifest.json says {len(MODEL)}"):
        Bundle(path)


@pytest.mark.parametrize("position", [0, len(MODEL) // 2, len(MODEL) - 1])
def test_another_file_of_the_same_length(path: Path, position: int) -> None:
    content = bytearray(MODEL)
    content[position] ^= 1
    tamper(write(path), "model.onnx", bytes(content))
    bundle = Bundle(path)
    with pytest.raises(DibrError, match=r"model.onnx is not the file that manifest.json describes"):
        bundle.read("model.onnx")
    assert bundle.read("model.engine") == FILES["model.engine"]


def test_a_file_that_grows_after_it_was_checked(tmp_path: Path) -> None:
    bundle = Bundle(write(tmp_path / "bundle"))
    (tmp_path / "bundle" / "model.onnx").write_bytes(MODEL + b"more")
    with pytest.raises(DibrError, match=r"is not the file that manifest.json describes"):
        bundle.read("model.onnx")


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_something_else_than_a_file(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "bundle")
    target = tmp_path / "bundle" / "model.onnx"
    target.unlink()
    target.mkdir() if kind == "folder" else os.mkfifo(target)
    with pytest.raises(DibrError, match=r"has no model.onnx"):
        Bundle(tmp_path / "bundle")


TRICKS = [
    "../model.onnx",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    ".hidden",
    "",
    "a\\b",
    "a\x00b",
    "a\n",
    "C:x",
    "é",
    "x" * 129,
]


@pytest.mark.parametrize("name", [*TRICKS, "x" * 129])
def test_names_that_lead_elsewhere(name: str) -> None:
    entry = entries(FILES)["model.onnx"].model_dump()
    starts = "bundle b: manifest.json is not valid: "
    assert refusal(raw_manifest(files={**raw_manifest()["files"], name: entry})).startswith(f"{starts}files.")
    assert refusal(raw_manifest(model=name)).startswith(f"{starts}model: ")
    assert refusal(raw_manifest(sample=name)).startswith(f"{starts}sample: ")
    assert refusal(raw_manifest(engines=[{**ENGINE, "file": name}])).startswith(f"{starts}engines.0.file: ")


def test_a_zip_whose_members_lead_elsewhere_is_never_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "inside" / "b.zip") if (tmp_path / "inside").mkdir() is None else tmp_path
    repack(path, lambda members: [*members, ("../escaped", b"x"), ("/tmp/escaped-by-bundle", b"x")])
    assert Bundle(path).read("model.onnx") == MODEL
    assert os.listdir(tmp_path) == ["inside"]
    assert not Path("/tmp/escaped-by-bundle").exists()


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_name_twice_in_a_zip(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "b.zip")
    with pytest.warns(UserWarning, match="Duplicate name"):
        repack(path, lambda members: [*members, next(member for member in members if member[0] == name)])
    with pytest.raises(DibrError, match=rf"bundle .*b.zip has {name} 2 times: pack or export it again"):
        Bundle(path)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_an_encrypted_member(tmp_path: Path, name: str) -> None:
    """The flag is set in both headers of the member, as a program that encrypts sets it."""
    path = write(tmp_path / "b.zip")
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        starts = [match.start() for match in re.finditer(re.escape(signature), content)]
        header = {b"PK\x03\x04": 30, b"PK\x01\x02": 46}[signature]
        [start] = [s for s in starts if content[s + header :].startswith(name.encode())]
        content[start + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DibrError, match=rf"{name} is encrypted: pack it again without a password"):
        Bundle(path)


def test_a_zip_bomb(tmp_path: Path) -> None:
    """Zeros that would unpack to a thousand times their packed size are refused, and are fine where not packed."""
    zeros = {"model.onnx": bytes(UNCHECKED_BYTES + 1)}
    path = write_bundle(tmp_path / "b.zip", manifest_of(zeros), zeros)
    assert Bundle(path).read("model.onnx") == zeros["model.onnx"]
    repack(path, lambda members: members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size * MAX_ZIP_RATIO < len(zeros["model.onnx"])
    with pytest.raises(DibrError, match=r"model.onnx would unpack from \d+ to 16777217 bytes, more than 100 times"):
        Bundle(path)


def test_a_member_that_lies_about_its_packed_size(tmp_path: Path) -> None:
    """A central directory that claims more packed bytes than the zip file has does not hide the bomb."""
    path = tmp_path / "b.zip"
    zeros = {"model.onnx": bytes(UNCHECKED_BYTES + 1)}
    repack(write_bundle(path, manifest_of(zeros), zeros), lambda members: members, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    [start] = [m.start() for m in re.finditer(b"PK\x01\x02", content) if content[m.start() + 46 :].startswith(b"model")]
    struct.pack_into("<I", content, start + 20, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(DibrError, match="would unpack from"):
        Bundle(path)


def test_a_bomb_as_manifest(tmp_path: Path) -> None:
    path = write(tmp_path / "b.zip")

    def swell(members):
        return [
            ("manifest.json", b" " * (100 * MAX_BYTES)) if name == "manifest.json" else (name, c) for name, c in members
        ]

    repack(path, swell, zipfile.ZIP_DEFLATED)
    with pytest.raises(DibrError, match=r"manifest.json would unpack"):
        Bundle(path)
    repack(path, swell)
    with pytest.raises(DibrError, match=rf"manifest.json has more than {MAX_BYTES} bytes"):
        Bundle(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_zip_that_is_cut_off(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "b.zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DibrError, match="is neither a folder nor a zip file"):
        Bundle(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_zip_is_refused_in_words_or_read_right(tmp_path: Path, compression: int) -> None:
    path = repack(write(tmp_path / "b.zip"), lambda members: members, compression)
    content = path.read_bytes()
    draw = random.Random(0)
    refusals = []
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            bundle = Bundle(path)
            assert all(bundle.read(name) == FILES[name] for name in bundle.manifest.files)
        except DibrError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all(sentence.startswith(f"bundle {path}") for sentence in refusals)


def test_a_newer_format(path: Path) -> None:
    write(path)
    later = json.dumps(raw_manifest(format_version=FORMAT_VERSION + 1, new_field=1)).encode()
    tamper(path, "manifest.json", later)
    sentence = (
        r"manifest.json has format version 2, but this dibr_deploy reads version 1: update dibr_deploy, or export"
    )
    with pytest.raises(DibrError, match=sentence):
        Bundle(path)


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[]", b"null", b'{"files": ', b"\xff\xfe", b"[" * 100_000])
def test_no_manifest_at_all(content: bytes) -> None:
    assert refusal(content).startswith("bundle b: manifest.json is not valid: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format_version", 0),
        ("schema_version", 0),
        ("schema_version", -1),
        ("schema_version", 2**40),
        ("schema_version", "1"),
        ("schema_version", 1.0),
        ("onnxruntime_api", None),
        ("opset", True),
        ("inputs", [{"name": "x", "dtype": "complex64", "shape": []}]),
        ("inputs", [{"name": "", "dtype": "float32", "shape": []}]),
        ("inputs", [{"name": "x", "dtype": "float32", "shape": [-1]}]),
        ("inputs", [{"name": "x", "dtype": "float32", "shape": [2**60]}]),
        ("inputs", [{"name": "x", "dtype": "float32", "shape": [1] * 9}]),
        ("inputs", "x"),
        ("files", {}),
        ("files", {"model.onnx": {"sha256": "0" * 64, "bytes": -1}}),
        ("files", {"model.onnx": {"sha256": "0" * 63, "bytes": 1}}),
        ("files", {"model.onnx": {"sha256": "G" * 64, "bytes": 1}}),
        ("files", {"model.onnx": {"sha256": "0" * 64, "bytes": 2**60}}),
        ("sample", "absent.npz"),
        ("engines", [{**ENGINE, "file": "absent.engine"}]),
        ("engines", [{**ENGINE, "flavour": "tensorrt_lean"}]),
        ("engines", [{**ENGINE, "version": "ten"}]),
        ("engines", [{**ENGINE, "compute_capability": ["sm_89"]}]),
        ("engines", [{**ENGINE, "plugin_sha256": ""}]),
        ("engines", [{**ENGINE, "profiles": [{"x": {"min": [2], "opt": [1], "max": [3]}}]}]),
        ("engines", [{**ENGINE, "profiles": [{"x": {"min": [1], "opt": [1, 1], "max": [3]}}]}]),
        ("engines", [{**ENGINE, "price": 1}]),
        ("surprise", 1),
    ],
)
def test_values_that_a_manifest_cannot_have(field: str, value: Any) -> None:
    sentence = refusal(raw_manifest(**{field: value}))
    assert sentence.startswith("bundle b: manifest.json is not valid: ")
    assert field in sentence or "files does not list" in sentence or "files" in field


def test_a_manifest_does_not_list_itself() -> None:
    listed = {**raw_manifest()["files"], "manifest.json": {"sha256": "0" * 64, "bytes": 1}}
    assert "files lists manifest.json itself" in refusal(raw_manifest(files=listed))


def test_damaged_manifests_are_refused_or_valid() -> None:
    """Whatever is changed in a manifest, the result is a Manifest or one sentence."""
    content = manifest_of(FILES, engines=(Engine(**ENGINE),)).to_json().encode()
    draw = random.Random(0)
    refusals = []
    for _ in range(2000):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.choice(b'{}[]",:0123456789-.eE \\nulltrue\x00\xff')
        try:
            assert isinstance(parse_manifest(bytes(damaged), "b"), Manifest)
        except DibrError as error:
            refusals.append(str(error))
    assert len(refusals) > 1000
    assert all(sentence.startswith("bundle b: ") and "\n" not in sentence for sentence in refusals)


def test_reading_needs_no_framework(path: Path) -> None:
    write(path)
    code = (
        "import sys; from dibr_deploy.runtime.bundle import Bundle\n"
        "bundle = Bundle(sys.argv[1]); assert bundle.read('model.onnx')\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
