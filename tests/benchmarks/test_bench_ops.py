"""The benchmark runs, compares the pictures before it times them, and writes what it prints. No time decides here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_ops.py"


def test_a_small_run_writes_every_ratio(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    options = ["--faces", "1280", "--sizes", "32", "48", "--seconds", "0.02", "--no-memory", "--output", str(output)]
    done = subprocess.run([sys.executable, str(BENCHMARK), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "another face on 0.000% of the pixels" in done.stderr
    report = json.loads(output.read_text())
    cases = {(row["op"], row["size"], row["backward"]) for row in report["rows"]}
    assert len(cases) == 5 * 2 * 2
    assert all(row["ours"] > 0 and row["torch"] > 0 and row["ratio"] > 0 for row in report["rows"])
    assert {entry["in"] for entry in report["growth"]} == {"pixels"}
