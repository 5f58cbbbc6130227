"""Compile every CUDA kernel for every architecture and report what the compiler and the disassembler say of it.

    python scripts/cuda_report.py            # writes docs/cuda_report.md and build/cuda_report/report.json
    python scripts/cuda_report.py --check    # writes only the latter, and compares the former's spills

Registers, shared memory, stack and spills are ptxas's own figures, theoretical occupancy is that of the toolkit's
``cuda_occupancy.h`` (scripts/occupancy.cpp states the limits of each SM), and instructions are counted in nvdisasm's
listing. No device and no driver are needed. Exit status 1: a float32 inference kernel spills or touches local memory,
or, with --check, docs/cuda_report.md says something else about stack and spills than this run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ROOT / "plugins"
REPORT = ROOT / "docs" / "cuda_report.md"
BUILD = ROOT / "build" / "cuda_report"

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
MIX_ARCHITECTURE = 90
# Those of cmake/DibrCuda.cmake that reach device code.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "-fmad=false",
    "-Werror=all-warnings",
    "-Xcompiler=-Wall,-Wextra,-Werror",
    f"-I{PLUGINS}",
    f"-I{PLUGINS / 'include'}",
)
THREADS = 256  # of every launch: kBlock and kTilePixels

STACK_HEADING = "## Stack, spills and local memory"

INSTRUCTIONS = {
    "float32": "FADD FMUL FFMA FSETP FSET FMNMX FSEL FCHK FADD2 FMUL2 FFMA2 FMNMX3".split(),
    "float64": "DADD DMUL DFMA DSETP DMNMX".split(),
    "special": "MUFU".split(),
    "conversion": "F2F F2I I2F FRND F2FP I2FP UI2F UF2I".split(),
    "global": "LDG STG LD ST".split(),
    "shared": "LDS STS LDSM".split(),
    "local": "LDL STL".split(),
    "atomic": "RED REDG ATOM ATOMG ATOMS REDS".split(),
    "warp": "SHFL VOTE VOTEU REDUX".split(),
    "barrier": "BAR WARPSYNC".split(),
    "branch": "BRA BRX EXIT CALL RET BREAK JMP BSSY BSYNC BMOV".split(),
}


@dataclass
class Kernel:
    """One kernel on one architecture; sizes in bytes, instruction counts static."""

    source: str
    name: str
    architecture: int
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int
    instructions: dict[str, int]
    occupancy: float = 0.0  # percent

    @property
    def local_accesses(self) -> int:
        return self.instructions["local"]

    @property
    def is_inference(self) -> bool:
        """Of a forward op on float32, float16 or bfloat16; binning included."""
        return not re.search(r"double|backward|gradient|Sink|finish_fixed|unsigned long long", self.name)

    @property
    def spills(self) -> bool:
        return self.spill_stores + self.spill_loads + self.local_accesses > 0


def tool(name: str, hint: str) -> str:
    """The path of a program; raise FileNotFoundError with what provides it."""
    packaged = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin" / name
    found = str(packaged) if packaged.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: {hint}")
    return found


def run(command: Sequence[str | Path], text: str | None = None) -> str:
    """Standard output of a command, followed by its standard error; raise RuntimeError where it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def readable(symbol: str) -> str:
    """dibr::cuda::(anonymous namespace)::k<float>(...) as k<float>."""
    name = re.sub(r"\(anonymous namespace\)::|dibr::cuda::|dibr::|^void ", "", symbol)
    depth = 0
    for i, character in enumerate(name):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "(" and depth == 0:
            return name[:i].replace("dibr_", "")
    return name.replace("dibr_", "")


def demangle(symbols: Iterable[str]) -> dict[str, str]:
    """Mangled to readable names. nvcc's names for anonymous namespaces hold a hash of the path; it goes."""
    unique = sorted(set(symbols))
    plain = [re.sub(r"\d+_GLOBAL__N__[0-9a-f]+_\d+_\w+?_cu_[0-9a-f]{8}", "12_GLOBAL__N_1", s) for s in unique]
    lines = run(["c++filt"], "\n".join(plain)).splitlines()
    lines = [line.replace("> >", ">>") for line in lines]
    return {symbol: readable(line) for symbol, line in zip(unique, lines, strict=True)}


def resources_of(log: str) -> dict[str, dict[str, int]]:
    """Per mangled kernel what `ptxas -v` printed."""
    found: dict[str, dict[str, int]] = {}
    for block in log.split("Compiling entry function '")[1:]:
        symbol = block.split("'", 1)[0]
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", block)
        registers = re.search(r"Used (\d+) registers", block)
        if stack is None or registers is None:
            raise RuntimeError(f"ptxas said nothing about the resources of {symbol}:\n{block}")
        shared = re.search(r"(\d+) bytes smem", block)
        found[symbol] = {
            "registers": int(registers[1]),
            "shared": int(shared[1]) if shared else 0,
            **dict(zip(("stack", "spill_stores", "spill_loads"), map(int, stack.groups()), strict=True)),
        }
    return found


def instructions_of(listing: str) -> dict[str, dict[str, int]]:
    """Per mangled kernel how many instructions of each class `nvdisasm -c` lists."""
    group_of = {name: group for group, names in INSTRUCTIONS.items() for name in names}
    found: dict[str, dict[str, int]] = {}
    for section in re.split(r"^\.text\.", listing, flags=re.MULTILINE)[1:]:
        symbol = section.split(":", 1)[0]
        opcodes = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", section, re.MULTILINE)
        counts = Counter(group_of.get(opcode, "integer and moves") for opcode in opcodes)
        found[symbol] = {group: counts[group] for group in (*INSTRUCTIONS, "integer and moves")}
        found[symbol]["total"] = len(opcodes)
    return found


def compiled(source: Path, architecture: int) -> list[Kernel]:
    """The kernels of one source file on one architecture."""
    nvcc = tool("nvcc", "it comes with the CUDA toolkit, 12.8 or newer")
    nvdisasm = tool("nvdisasm", "pip install nvidia-cuda-nvdisasm, or the CUDA toolkit")
    binary = BUILD / f"{source.stem}.sm_{architecture}.cubin"
    log = run([nvcc, *FLAGS, "-cubin", f"-arch=sm_{architecture}", "-Xptxas", "-v", source, "-o", binary])
    instructions = instructions_of(run([nvdisasm, "-c", binary]))
    resources = resources_of(log)
    names = demangle(resources)
    return [
        Kernel(source.name, names[symbol], architecture, instructions=instructions[symbol], **values)
        for symbol, values in resources.items()
    ]


def add_occupancy(kernels: list[Kernel]) -> None:
    """Fill in theoretical occupancy by the toolkit's calculator."""
    program = BUILD / "occupancy"
    include = Path(tool("nvcc", "it comes with the CUDA toolkit")).resolve().parent.parent / "include"
    if not (include / "cuda_occupancy.h").exists():
        include = include_folder_of_nvcc()
    run(["g++", "-std=c++17", f"-isystem{include}", ROOT / "scripts" / "occupancy.cpp", "-o", program])
    lines = [f"{k.architecture} {k.registers} {k.shared} {THREADS}" for k in kernels]
    for kernel, percent in zip(kernels, run([program], "\n".join(lines)).split(), strict=True):
        kernel.occupancy = float(percent)


def include_folder_of_nvcc() -> Path:
    """Where nvcc says that its headers are: on some machines the nvcc of PATH is a script."""
    dry = run([tool("nvcc", "it comes with the CUDA toolkit"), "--dryrun", "-E", "-x", "cu", os.devnull])
    top = re.search(r"^#\$ TOP=(.*)$", dry, re.MULTILINE)
    if top is None:
        raise RuntimeError("nvcc --dryrun names no TOP folder")
    return Path(top[1]) / "include"


def all_kernels(jobs: int) -> list[Kernel]:
    """Every kernel of plugins/cuda on every architecture, in a fixed order."""
    BUILD.mkdir(parents=True, exist_ok=True)
    sources = sorted((PLUGINS / "cuda").glob("*.cu"))
    work = [(source, architecture) for source in sources for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(jobs) as pool:
        kernels = [kernel for batch in pool.map(lambda item: compiled(*item), work) for kernel in batch]
    kernels.sort(key=lambda k: (k.source, "double" in k.name, k.name, k.architecture))
    add_occupancy(kernels)
    return kernels


def grouped(kernels: Iterable[Kernel]) -> dict[tuple[str, str], dict[int, Kernel]]:
    """(source, name) -> architecture -> kernel."""
    groups: dict[tuple[str, str], dict[int, Kernel]] = {}
    for kernel in kernels:
        groups.setdefault((kernel.source, kernel.name), {})[kernel.architecture] = kernel
    return groups


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose first column is text and the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def resources_table(kernels: list[Kernel]) -> str:
    rows = []
    for (source, name), by_architecture in grouped(kernels).items():
        shared = sorted({k.shared for k in by_architecture.values()})
        cells = [f"{k.registers} / {k.occupancy:.0f} %" for k in by_architecture.values()]
        rows.append([f"`{name}`<br>{source}", " to ".join(map(str, shared)), *cells])
    return table(["kernel", "shared bytes", *(f"sm_{a}" for a in ARCHITECTURES)], rows)


def stack_table(kernels: list[Kernel]) -> str:
    """Kernels with a stack frame; as `stack bytes, spill stores + spill loads, local instructions`."""
    rows = []
    for (source, name), by_architecture in grouped(kernels).items():
        if any(k.stack or k.spills for k in by_architecture.values()):
            values = by_architecture.values()
            cells = [f"{k.stack}, {k.spill_stores}+{k.spill_loads}, {k.local_accesses}" for k in values]
            rows.append([f"`{name}`<br>{source}", *cells])
    return table(["kernel", *(f"sm_{a}" for a in ARCHITECTURES)], rows)


def mix_table(kernels: list[Kernel]) -> str:
    chosen = [k for k in kernels if k.architecture == MIX_ARCHITECTURE]
    columns = ("total", *INSTRUCTIONS, "integer and moves")
    rows = [[f"`{k.name}`<br>{k.source}", *(k.instructions[column] for column in columns)] for k in chosen]
    return table(["kernel", *columns], rows)


def compiler() -> str:
    match = re.search(r"release [\d.]+, V([\d.]+)", run([tool("nvcc", "it comes with the CUDA toolkit"), "--version"]))
    return match[1] if match else "of an unknown version"


def stack_section(kernels: list[Kernel]) -> str:
    return f"""{STACK_HEADING}

Kernels that have a stack frame, spills or local memory instructions, as `stack bytes, spill stores + spill loads in
bytes, local memory instructions`. Every other kernel has 0 everywhere. No float32 inference kernel may appear here with
a spill or a local memory instruction: the report then fails.

{stack_table(kernels)}
"""


def document(kernels: list[Kernel]) -> str:
    inference = [k for k in kernels if k.is_inference]
    others = [k for k in kernels if not k.is_inference]
    return f"""# What the compiler makes of the CUDA kernels

Written by `make cuda-report` (scripts/cuda_report.py) with nvcc {compiler()}; not edited by hand. Registers, shared
memory, stack and spills are those of `ptxas -v`. Occupancy is theoretical: the share of an SM's threads that can be
resident with blocks of {THREADS} threads, which every launch uses, by the toolkit's `cuda_occupancy.h` with the limits
of each SM from the CUDA C++ Programming Guide. Nothing here was measured on a device.

## Inference in float32, float16 and bfloat16

`registers per thread / occupancy`

{resources_table(inference)}

## Gradients, and everything in float64

`registers per thread / occupancy`

{resources_table(others)}

{stack_section(kernels)}
## Instructions on sm_{MIX_ARCHITECTURE}

Static counts in nvdisasm's listing, whatever the subroutines of a kernel included; how often each runs is in
[performance.md](performance.md).

{mix_table(kernels)}
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def spilling(kernels: list[Kernel]) -> list[str]:
    """One sentence for each float32 inference kernel that spills."""
    return [
        f"{k.name} ({k.source}) on sm_{k.architecture}: {k.spill_stores} bytes of spill stores, {k.spill_loads} of "
        f"spill loads, {k.local_accesses} local memory instructions"
        for k in kernels
        if k.is_inference and k.spills
    ]


def section(text: str, heading: str) -> str:
    """From a heading to the next of its level; empty where there is none."""
    match = re.search(rf"^{re.escape(heading)}$.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return match[0].strip() if match else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="do not write docs/cuda_report.md: compare its spills")
    parser.add_argument("--jobs", type=int, default=1, help="compilers to run at a time")
    arguments = parser.parse_args()
    kernels = all_kernels(arguments.jobs)
    write(BUILD / "report.json", json.dumps([asdict(k) for k in kernels], indent=1))
    faults = spilling(kernels)
    if not arguments.check:
        write(REPORT, document(kernels))
    elif section(REPORT.read_text(), STACK_HEADING) != stack_section(kernels).strip():
        faults.append(f"docs/{REPORT.name} differs from nvcc {compiler()} in stack or spills: run make cuda-report")
    print(stack_table(kernels))
    print(f"{len(grouped(kernels))} kernels on {len(ARCHITECTURES)} architectures, {len(faults)} faults")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
