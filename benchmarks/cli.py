"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from . import plots, report, running, suite, targets
from .worker import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The renderer beside its peers on this machine: one table, plots and a JSON file. "
        "Without options all scenes, in about 15 minutes, into docs/.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer scenes, about two minutes, into build/bench")
    size.add_argument("--smoke", action="store_true", help="tiny scenes without peers, seconds, into build/bench")
    parser.add_argument("--output", type=Path, help="folder for benchmarks.md, benchmarks.json and images/")
    arguments = parser.parse_args()
    chosen = suite.quick() if arguments.quick else suite.smoke() if arguments.smoke else suite.full()
    reduced = arguments.quick or arguments.smoke
    output: Path = arguments.output or ROOT / ("build/bench" if reduced else "docs")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        results = running.run(chosen, Path(folder))
    results.write(output / "benchmarks.json")
    drawn = plots.draw(results, output / "images")
    report.write(results, drawn, output / "benchmarks.md")
    print(report.verdicts(targets.judge(results)))
    refused = [found for found in results.agreements if found.unexplained]
    return 1 if refused else 0
