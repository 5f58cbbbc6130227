"""check_contents.py WHEEL: the wheel has what it should, nothing twice, and its libraries export what they should."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARIES = {
    "libdibr.so.1": {"dibr_"},
    "libdibr_torch.so": set(),
    "libdibr_onnxruntime.so": {"RegisterCustomOps"},
}


def exported(library: Path) -> set[str]:
    """Names of the symbols that a library defines for others; version nodes (absolute symbols) apart."""
    listed = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {row[2].split("@")[0] for row in rows if len(row) == 3 and row[1] != "A"}


def check_library(path: Path, prefixes: set[str]) -> None:
    stray = {name for name in exported(path) if not any(name.startswith(prefix) for prefix in prefixes)}
    assert not stray, f"{path.name} exports {sorted(stray)}"
    for prefix in prefixes:
        assert any(name.startswith(prefix) for name in exported(path)), f"{path.name} exports no {prefix}*"
    assert str(REPOSITORY).encode() not in path.read_bytes(), f"{path.name} has paths of the machine that built it"
    dynamic = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    paths = [
        line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(RUNPATH)" in line or "(RPATH)" in line
    ]
    assert paths in (["$ORIGIN"], []), f"{path.name} looks for libraries in {paths}"
    assert paths or path.name == "libdibr.so.1", f"{path.name} does not look beside itself for libdibr"


def main() -> None:
    wheel = Path(sys.argv[1])
    assert wheel.name.split("-")[2:4] == ["py3", "none"], f"{wheel.name} is bound to one Python"
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        package = Path(folder) / "dibr_deploy"
        libraries = sorted(path.name for path in (package / "lib").iterdir())
        assert libraries == sorted(LIBRARIES), f"the wheel has the libraries {libraries}, not {sorted(LIBRARIES)}"
        for name, prefixes in LIBRARIES.items():
            check_library(package / "lib" / name, prefixes)
        expected = ["__init__.py", "ops.py", "export/__init__.py", "runtime/__init__.py", "include/dibr/dibr.h"]
        page = [path for path in (REPOSITORY / "runtime" / "server" / "static").iterdir() if path.is_file()]
        assert {"index.html", "page.js", "service.js", "icon.svg"} <= {path.name for path in page}
        expected += ["runtime/server/open_inference.binpb", *(f"runtime/server/static/{path.name}" for path in page)]
        expected += [f"demo/{name}" for name in ("model.zip", "scores.json", "duck.png")]
        if shutil.which("npm"):  # or there is no 3D view, as docs/serving.md says
            expected += ["runtime/server/static/three/three.module.js", "runtime/server/static/three/LICENSE"]
        missing = [name for name in expected if not (package / name).is_file()]
        assert not missing, f"the wheel lacks {missing}"
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert {top for top in tops if not top.endswith(".dist-info")} == {"dibr_deploy"}, f"the wheel has {tops}"
        stray = [name for name in archive.namelist() if name.endswith((".cpp", ".cu", ".o", ".pyc", "CMakeLists.txt"))]
        assert not stray, f"the wheel has {stray}"
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {', '.join(libraries)}")


if __name__ == "__main__":
    main()
