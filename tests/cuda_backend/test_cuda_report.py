"""scripts/cuda_report.py reads the compiler right: a planted spill and a planted local array are found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import programs
import pytest

ROOT = Path(__file__).resolve().parents[2]
# Four blocks of 512 threads an SM leave 32 registers a thread.
SPILLING = """
__global__ void __launch_bounds__(512, 4) planted_kernel(const float* in, float* out) {
  float values[96];
  for (int i = 0; i < 96; ++i) values[i] = in[i * 512 + threadIdx.x];
  for (int i = 0; i < 96; ++i) out[i * 512 + threadIdx.x] = values[(i * 7) % 96] * values[95 - i];
}
__global__ void indexed_kernel(const int* at, float* out, int count) {
  float values[64] = {};
  for (int i = 0; i < count; ++i) values[at[i] & 63] += out[i];
  for (int i = 0; i < count; ++i) out[i] = values[at[count - i] & 63];
}
template <class T>
__global__ void plain_kernel(T* out) { out[threadIdx.x] *= T(2); }
template __global__ void plain_kernel<float>(float*);
template __global__ void plain_kernel<double>(double*);
"""


@pytest.fixture(scope="module")
def report() -> ModuleType:
    return programs.script("cuda_report")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
def test_spills_and_local_memory_are_found(report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        report.tool("nvdisasm", "")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(report, "BUILD", tmp_path)
    source = tmp_path / "planted.cu"
    source.write_text(SPILLING)
    kernels = {kernel.name: kernel for kernel in report.compiled(source, 80)}
    assert set(kernels) == {"planted_kernel", "indexed_kernel", "plain_kernel<float>", "plain_kernel<double>"}
    assert kernels["planted_kernel"].spill_stores > 0
    assert kernels["indexed_kernel"].local_accesses > 0 and kernels["indexed_kernel"].stack >= 256
    assert not kernels["plain_kernel<float>"].spills
    assert kernels["plain_kernel<float>"].instructions["global"] == 2
    assert [kernel.name for kernel in kernels.values() if kernel.is_inference and not kernel.spills] == [
        "plain_kernel<float>"
    ]
    assert len(report.spilling(list(kernels.values()))) == 2


def test_every_launch_has_the_block_size_that_occupancy_is_given_for(report: ModuleType) -> None:
    sources = [
        path.read_text() for path in (ROOT / "plugins" / "cuda").iterdir() if path.suffix in (".cu", ".cuh", ".h")
    ]
    launches = [
        match[1] for text in sources for match in re.finditer(r"DIBR_LAUNCH\((?!kernel)(.*?);\n", text, re.DOTALL)
    ]
    assert len(launches) >= 15
    for launch in launches:
        assert re.search(r",\s*(kBlock|kTilePixels),\s*0,", launch), launch
    assert report.THREADS == 256
    assert any("kBlock = 256" in text for text in sources) and any("kTile = 16" in text for text in sources)


def test_the_documented_report_has_no_spill_in_float32_inference() -> None:
    text = (ROOT / "docs" / "cuda_report.md").read_text()
    section = text.split("## Stack, spills and local memory")[1].split("\n## ")[0]
    for row in re.findall(r"^\| `(.*?)`.*?\| (.*) \|$", section, re.MULTILINE):
        if not re.search("double|backward|gradient|Sink", row[0]):
            assert all(cell.strip().endswith(", 0+0, 0") for cell in row[1].split("|")), row
