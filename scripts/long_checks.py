"""Run the tests of random hostile input and of endurance at full length, and write their counts to docs/long_checks.md.

`make test-long` runs this. The counts are those that the tests report of themselves.

    python scripts/long_checks.py --iterations 1000000 [arguments of pytest]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from sources import current_commit

from dibr_deploy.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "long_checks.xml"
PAGE = ROOT / "docs" / "long_checks.md"


class Check(NamedTuple):
    """One test that ran."""

    name: str
    counts: dict[str, int]
    """What it tried, by what became of it."""
    seconds: float
    result: str
    """"passed", "failed" or "skipped"."""


def read_results(path: Path) -> list[Check]:
    """The tests in a JUnit file of pytest, in the order of their names."""
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return sorted(map(_check, cases), key=lambda check: check.name)


def _check(case: ElementTree.Element) -> Check:
    file = case.get("classname", "").replace(".", "/")
    counts = {item.get("name", ""): int(item.get("value", "0")) for item in case.iter("property")}
    kinds = {child.tag for child in case}
    result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
    return Check(f"{file}.py::{case.get('name')}", counts, float(case.get("time", "0")), result)


def page(checks: list[Check], commit: str, date: datetime.date, iterations: int) -> str:
    lines = [
        "# Long checks",
        "",
        "Hostile input, drawn at random: plugin fields and tensor descriptions for the TensorRT plugins, under address",
        "and undefined-behaviour sanitizers; manifests, archives and files of bundles; requests to the service over",
        "HTTP and gRPC, image files in them, and what schemathesis draws from its description. Beside them stands the",
        "service's memory over 20,000 requests. `make test` runs 5 % of this. `make test-long` runs all of it, with",
        f"DIBR_HOSTILE_ITERATIONS={iterations}, and wrote this page.",
        "",
        f"Commit {commit}, {date.isoformat()}, Python {platform.python_version()}, {platform.machine()}.",
        "",
        "| check | cases | of these | seconds | result |",
        "|---|---:|---|---:|---|",
    ]
    for check in checks:
        parts = ", ".join(f"{count:,} {name}" for name, count in check.counts.items())
        total = f"{sum(check.counts.values()):,}" if check.counts else ""
        lines.append(f"| `{check.name}` | {total} | {parts} | {check.seconds:.0f} | {check.result} |")
    all_cases = sum(sum(check.counts.values()) for check in checks)
    passed = sum(check.result == "passed" for check in checks)
    lines += ["", f"{all_cases:,} cases; {passed} of {len(checks)} checks passed.", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the tests of hostile input at full length.")
    parser.add_argument("--iterations", type=int, default=1_000_000, help="of each kind (default %(default)s)")
    arguments, of_pytest = parser.parse_known_args()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.unlink(missing_ok=True)
    commit = current_commit()
    environment = {**os.environ, "DIBR_HOSTILE_ITERATIONS": str(arguments.iterations)}
    # xunit1: the other family has no place for what a test records of itself.
    to_file = [f"--junitxml={RESULTS}", "-o", "junit_family=xunit1"]
    command = [sys.executable, "-m", "pytest", "-m", "long", *to_file, *of_pytest]
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if not RESULTS.exists():
        return status
    checks = read_results(RESULTS)
    write_atomically(PAGE, page(checks, commit, datetime.date.today(), arguments.iterations))
    print(f"written to {PAGE.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
