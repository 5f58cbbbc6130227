"""The code on the pages is right: each block of README.md and docs/ is extracted and run, in order, as copied."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_HERE = {"cuda.md", "tensorrt.md", "performance.md", "cuda_report.md"}
"""Pages whose code needs a GPU or the vendor's software."""

FRAGMENTS = {"cmake", "cpp"}
"""Pieces of a C++ project: ``tests/runtime_cpp/consumer`` and ``runtime/cpp/examples`` are whole ones."""

SMALLER = {
    "README.md": {"for step in range(200)": "for step in range(2)", "--steps 400": "--steps 2"},
}
"""Numbers on a page that take minutes, and what the test runs instead; each must occur."""

SETUP = {
    "data.md": """
from pathlib import Path
from dibr_deploy.data import make_dataset
from dibr_deploy.mesh import icosphere, write_mesh
Path("meshes").mkdir()
write_mesh(icosphere(1), "meshes/duck.ply")
make_dataset("meshes", "dataset", views=4, size=16)
""",
}
"""What a page takes to be there, made by a first block."""


class Block(NamedTuple):
    language: str
    line: int
    code: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page that name a language."""
    text = page.read_text()
    for long, short in SMALLER.get(page.name, {}).items():
        assert text.count(long) == 1, f"{page.name} has no {long!r}"
        text = text.replace(long, short)
    fence = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = [Block(part[1], text.count("\n", 0, part.start()) + 2, part[2]) for part in fence.finditer(text)]
    return [block for block in found if block.language not in FRAGMENTS]


def command(block: Block) -> list[str | Path]:
    """How a block is run. Targets of the Makefile are looked up and not made: they would run these tests."""
    if block.language == "python":
        return [sys.executable, "-c", block.code]
    if block.language == "json":
        return [sys.executable, "-c", f"import json; json.loads({block.code!r})"]
    if block.language == "toml":
        values = {**tomllib.loads(block.code)}
        settings = {name: value for name, value in values.items() if name not in ("data", "output")}
        return [
            sys.executable,
            "-c",
            f"from dibr_deploy.training.config import parse_config; parse_config({settings!r})",
        ]
    assert block.language == "bash", f"no way to run a block of {block.language}"
    code = re.sub(r"^make ", f"make -C '{ROOT}' --dry-run ", block.code, flags=re.MULTILINE)
    return ["bash", "-euo", "pipefail", "-c", code]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NOT_HERE], ids=lambda page: page.name)
def test_every_block_runs(page: Path, tmp_path: Path) -> None:
    """Each block is a program of its own, as copied from the page; files that one leaves the next may read."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    setup = [Block("python", 0, SETUP[page.name])] if page.name in SETUP else []
    for block in [*setup, *blocks(page)]:
        done = subprocess.run(
            command(block),
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "OMP_WAIT_POLICY": "passive"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{page.name}, line {block.line}:\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that are there, and anchors name headings."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
