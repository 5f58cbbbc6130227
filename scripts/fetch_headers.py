"""Find or fetch what is built with and comes from other projects: the headers that the native libraries compile
against, the JavaScript of the service's page, and that of the page's test.

Nothing of others is committed. A package that this machine already has is used as it is; otherwise it is taken by
pinned version and SHA-256 through the machine's package client, and what is needed of it is unpacked into the
git-ignored folder ``third_party/``. Only the standard library is used, and nothing is fetched twice.

    python scripts/fetch_headers.py onnxruntime torch     # prints one include folder a line
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

THIRD_PARTY = Path(__file__).resolve().parent.parent / "third_party"
STAMP = "FETCHED"


class FetchError(RuntimeError):
    """The headers could not be fetched; the message says why."""


class Headers(NamedTuple):
    """Where the headers, or other files, of one package come from."""

    installed: Callable[[], Path | None]  # include folder that the machine already has
    fetch: Callable[[Path], Path]  # unpacks into the scratch folder and returns the include folder there
    sha256: str  # of the fetched archives
    override: str  # what a user can do instead
    what: str = "headers"


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command and return its standard output; on failure raise FetchError with the last line it printed."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise FetchError(f"{' '.join(command[:3])} failed: {lines[-1]}")
    return done.stdout


def check_sha256(path: Path, expected: str) -> None:
    """Raise FetchError unless the file has the pinned digest."""
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        raise FetchError(f"{path.name}: SHA-256 is {actual}, expected {expected}")


def fetch_wheel(into: Path, sha256: str, folders: tuple[str, ...], *requirement: str) -> None:
    """Download one wheel, of which nothing is run, and unpack the given folders of it."""
    # -E: in an isolated build PYTHONPATH hides the pip of the interpreter that the wheel is built for.
    pip = [sys.executable, "-E", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    run(*pip, *requirement, cwd=into)
    [archive] = into.glob("*.whl")
    check_sha256(archive, sha256)
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(into, [name for name in wheel.namelist() if name.startswith(folders)])


# --- Debian packages. Headers are platform-neutral, so the amd64 file serves every machine that has apt.


def debian_mirror() -> str:
    """URI of the Debian archive that this machine's apt is set up with."""
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    mirrors = [uri for uri in listed.split() if "/debian" in uri and "security" not in uri]
    if not mirrors:
        raise FetchError("apt knows no Debian archive")
    return mirrors[0]


def fetch_debian(scratch: Path, requirement: str, sha256: str) -> Path:
    """Download a package of Debian 13 through an apt root of our own, which leaves the system's lists alone, and unpack
    it. Returns its /usr/include."""
    for folder in ("sources", "lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    source = f"deb [arch=amd64 signed-by={keyring}] {debian_mirror()} trixie main\n"
    (scratch / "sources" / "debian.list").write_text(source)
    options = [
        f"Dir::Etc::sourceparts={scratch}/sources",
        "Dir::Etc::sourcelist=/dev/null",
        f"Dir::State::lists={scratch}/lists",
        f"Dir::State::status={scratch}/status",
        f"Dir::Cache={scratch}/cache",
        "APT::Architecture=amd64",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    ]
    apt = ["apt-get", "-qq", *(part for option in options for part in ("-o", option))]
    run(*apt, "update")
    run(*apt, "download", requirement, cwd=scratch)
    [archive] = scratch.glob("*.deb")
    check_sha256(archive, sha256)
    run("dpkg-deb", "-x", str(archive), str(scratch / "unpacked"))
    return scratch / "unpacked" / "usr" / "include"


# --- ONNX Runtime: C and C++ API 21.

ONNXRUNTIME_PACKAGE = "libonnxruntime-dev=1.21.0+dfsg-1"
ONNXRUNTIME_SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"


def installed_onnxruntime() -> Path | None:
    include = Path("/usr/include/onnxruntime")
    return include if (include / "onnxruntime_cxx_api.h").is_file() else None


def fetch_onnxruntime(scratch: Path) -> Path:
    return fetch_debian(scratch, ONNXRUNTIME_PACKAGE, ONNXRUNTIME_SHA256) / "onnxruntime"


# --- nlohmann-json: JSON for C++, for the SDK.

NLOHMANN_JSON_PACKAGE = "nlohmann-json3-dev=3.11.3-2.1"
NLOHMANN_JSON_SHA256 = "741a6a32f61a14eaf9560ba1814b27da8e78fa3b9bed9e8867ab46316ddf3793"


def installed_nlohmann_json() -> Path | None:
    include = Path("/usr/include")
    return include if (include / "nlohmann" / "json.hpp").is_file() else None


def fetch_nlohmann_json(scratch: Path) -> Path:
    return fetch_debian(scratch, NLOHMANN_JSON_PACKAGE, NLOHMANN_JSON_SHA256)


# --- torch: the stable-ABI headers. They are the same on every platform, so where torch is not installed they are
# --- taken from its smallest wheel; nothing of torch itself is unpacked.

TORCH_VERSION = "2.13.0"
TORCH_FLOOR = (2, 10)
TORCH_SHA256 = "2fe228aba290d14b9f31b049be550dbd469c3fd3013d7a19705b30454da97027"
TORCH_WHEEL = ("--platform=macosx_14_0_arm64", "--python-version=3.12", "--implementation=cp", "--abi=cp312")
TORCH_FOLDERS = tuple(
    f"torch/include/torch/{folder}/" for folder in ("csrc/stable", "csrc/inductor/aoti_torch", "headeronly")
)


def installed_torch() -> Path | None:
    """torch of the interpreter that runs this script. It is not imported, which would take seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    release = importlib.metadata.version("torch").split("+")[0].split(".")
    include = Path(spec.origin).parent / "include"
    new_enough = (int(release[0]), int(release[1])) >= TORCH_FLOOR
    return include if new_enough and (include / "torch/csrc/stable/library.h").is_file() else None


def fetch_torch(scratch: Path) -> Path:
    fetch_wheel(scratch, TORCH_SHA256, TORCH_FOLDERS, *TORCH_WHEEL, f"torch=={TORCH_VERSION}")
    return scratch / "torch" / "include"


# --- TensorRT: the headers of 10.14 as a wheel on PyPI redistributes them, and those of the CUDA runtime that they
# --- include. Nothing of the wheels is run.

TENSORRT_WHEELS = {
    "kernel-lens==2.0.1": (
        "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0",
        "kernel_lens/include/tensorrt/",
    ),
    "nvidia-cuda-runtime==13.0.96": (
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        "nvidia/cu13/include/",
    ),
    "nvidia-cuda-crt==13.0.88": (
        "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
        "nvidia/cu13/include/",
    ),
}
TENSORRT_PLATFORM = "--platform=manylinux2014_x86_64"
TENSORRT_FLOOR = 10


def installed_tensorrt() -> Path | None:
    """TensorRT's development package of the system."""
    usr = Path("/usr/include")
    for include in (usr / "x86_64-linux-gnu", usr / "aarch64-linux-gnu", usr):
        version = include / "NvInferVersion.h"
        if version.is_file() and tensorrt_major(version.read_text()) >= TENSORRT_FLOOR:
            return include
    return None


def tensorrt_major(version_header: str) -> int:
    """Major version that NvInferVersion.h states; 0 where it states none."""
    found = re.search(r"define (?:NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE) (\d+)", version_header)
    return int(found[1]) if found else 0


def fetch_tensorrt(scratch: Path) -> Path:
    include = scratch / "include"
    for requirement, (sha256, folder) in TENSORRT_WHEELS.items():
        download = scratch / requirement
        download.mkdir()
        fetch_wheel(download, sha256, (folder,), TENSORRT_PLATFORM, requirement)
        shutil.copytree(download / folder, include, dirs_exist_ok=True)
    return include


# --- JavaScript from npm's packages, of which nothing is run here.

THREE_SHA256 = "ff540832ded0cfe919764d24a3d88f3e2a05f23303f876423e4f893841e90728"
THREE_FILES = (
    "LICENSE",
    "build/three.core.js",
    "build/three.module.js",
    "examples/jsm/controls/OrbitControls.js",
    "examples/jsm/loaders/GLTFLoader.js",
    "examples/jsm/utils/BufferGeometryUtils.js",
    "examples/jsm/utils/SkeletonUtils.js",
)
THREE_IMPORT = re.compile(rb"(\bfrom )'(?:three|\.\./utils/(\w+)\.js)';")
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
AXE_FILES = ("LICENSE", "axe.min.js")


def fetch_npm(scratch: Path, package: str, sha256: str, names: tuple[str, ...]) -> Path:
    """Download one package, and put the named files of it into one folder."""
    run("npm", "pack", "--silent", package, cwd=scratch)
    [archive] = scratch.glob("*.tgz")
    check_sha256(archive, sha256)
    folder = scratch / "files"
    folder.mkdir()
    with tarfile.open(archive) as files:
        for name in names:
            member = files.extractfile(f"package/{name}")
            if member is None:
                raise FetchError(f"{package} has no {name}")
            (folder / Path(name).name).write_bytes(member.read())
    return folder


def fetch_three(scratch: Path) -> Path:
    """Its modules import each other by names that a page would have to map; here by the files' names."""
    folder = fetch_npm(scratch, "three@0.187.0", THREE_SHA256, THREE_FILES)
    for path in folder.glob("*.js"):
        path.write_bytes(THREE_IMPORT.sub(_by_file, path.read_bytes()))
    return folder


def _by_file(found: re.Match[bytes]) -> bytes:
    return found[1] + b"'./" + (found[2] or b"three.module") + b".js';"


PACKAGES = {
    "onnxruntime": Headers(
        installed_onnxruntime,
        fetch_onnxruntime,
        ONNXRUNTIME_SHA256,
        "set ORT_INCLUDE_DIR to the include folder of an ONNX Runtime 1.21 or newer release archive",
    ),
    "nlohmann_json": Headers(
        installed_nlohmann_json,
        fetch_nlohmann_json,
        NLOHMANN_JSON_SHA256,
        "set NLOHMANN_JSON_INCLUDE_DIR to the include folder of nlohmann-json 3.9 or newer",
    ),
    "torch": Headers(
        installed_torch,
        fetch_torch,
        TORCH_SHA256,
        "install torch 2.10 or newer first, or set TORCH_INCLUDE_DIR to the include folder of one",
    ),
    "tensorrt": Headers(
        installed_tensorrt,
        fetch_tensorrt,
        " ".join(sha256 for sha256, _ in TENSORRT_WHEELS.values()),
        "set TENSORRT_INCLUDE_DIR to the include folder of TensorRT 10.0 or newer",
    ),
    "three": Headers(
        lambda: None,
        fetch_three,
        THREE_SHA256,
        "install npm, or set DIBR_PAGE=OFF: the service's page then has no 3D view",
        "modules",
    ),
    "axe-core": Headers(
        lambda: None,
        lambda scratch: fetch_npm(scratch, "axe-core@4.14.1", AXE_SHA256, AXE_FILES),
        AXE_SHA256,
        "install npm, or go without the check of accessibility",
        "script",
    ),
}


def fetched(name: str) -> Path:
    """Folder of a package's files under third_party/, fetched when it is not there. A broken fetch leaves nothing."""
    headers = PACKAGES[name]
    target = THIRD_PARTY / name
    if not is_fetched(target, headers):
        THIRD_PARTY.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=THIRD_PARTY) as scratch:
            ready = Path(scratch) / "ready"
            shutil.copytree(headers.fetch(Path(scratch)), ready / "include")
            (ready / STAMP).write_text(headers.sha256 + "\n")
            if not is_fetched(target, headers):  # by someone else meanwhile, who may be reading it
                shutil.rmtree(target, ignore_errors=True)
                os.replace(ready, target)
    return target / "include"


def is_fetched(target: Path, headers: Headers) -> bool:
    stamp = target / STAMP
    return stamp.is_file() and stamp.read_text().strip() == headers.sha256


def main() -> int:
    parser = argparse.ArgumentParser(description="Find or fetch files of other projects and print their folders.")
    parser.add_argument("names", nargs="+", choices=sorted(PACKAGES), metavar="NAME", help=", ".join(sorted(PACKAGES)))
    for name in parser.parse_args().names:
        try:
            print(PACKAGES[name].installed() or fetched(name))
        except (FetchError, OSError) as error:
            print(f"no {name} {PACKAGES[name].what}: {error}; {PACKAGES[name].override}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
