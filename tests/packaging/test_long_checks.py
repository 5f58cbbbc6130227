"""scripts/long_checks.py: what it writes is what the tests reported."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from types import ModuleType

import programs
import pytest

PROGRAM = """
import pytest

@pytest.mark.long
@pytest.mark.parametrize("count", [7, 1200])
def test_counted(count, record_property):
    record_property("accepted", count)
    record_property("refused", 2 * count)
    assert count < 1000

@pytest.mark.long
def test_skipped():
    pytest.skip("not here")

def test_of_another_kind():
    pass
"""


@pytest.fixture(scope="module")
def long_checks() -> ModuleType:
    return programs.script("long_checks")


@pytest.fixture
def root(long_checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tests of its own, which the script runs instead of the project's."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "test_program.py").write_text(PROGRAM)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = long: of a million inputs\n")
    monkeypatch.setattr(long_checks, "ROOT", tmp_path)
    monkeypatch.setattr(long_checks, "RESULTS", tmp_path / "build" / "long_checks.xml")
    monkeypatch.setattr(long_checks, "PAGE", tmp_path / "docs" / "long_checks.md")
    monkeypatch.setattr(long_checks, "current_commit", lambda: "0123456789ab")
    return tmp_path


def test_the_page_has_what_the_tests_counted(
    long_checks: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["long_checks.py", "--iterations", "20", "-p", "no:cacheprovider", "-q"])
    assert long_checks.main() == 1  # as pytest: one test has failed
    page = (root / "docs" / "long_checks.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "::" in line]
    assert [(name, cases, counts, result) for name, cases, counts, _, result in rows] == [
        ("`test_program.py::test_counted[1200]`", "3,600", "1,200 accepted, 2,400 refused", "failed"),
        ("`test_program.py::test_counted[7]`", "21", "7 accepted, 14 refused", "passed"),
        ("`test_program.py::test_skipped`", "", "", "skipped"),
    ]
    assert f"Commit 0123456789ab, {datetime.date.today().isoformat()}, " in page
    assert "DIBR_HOSTILE_ITERATIONS=20" in page
    assert page.endswith("\n3,621 cases; 1 of 3 checks passed.\n")


def test_nothing_is_written_where_no_test_ran(
    long_checks: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["long_checks.py", "--no-such-option"])
    assert long_checks.main() != 0
    assert not (root / "docs" / "long_checks.md").exists()


def test_a_test_that_fails_and_is_not_torn_down(long_checks: ModuleType, tmp_path: Path) -> None:
    """pytest reports it twice, with whatever it has counted."""
    case = (
        '<testcase classname="tests.a" name="test_a" time="1">'
        '<properties><property name="{}" value="1"/></properties><{}/></testcase>'
    )
    cases = [case.format("x", "failure"), case.format("y", "error")]
    (tmp_path / "results.xml").write_text(f"<testsuite>{''.join(cases)}</testsuite>")
    checks = long_checks.read_results(tmp_path / "results.xml")
    assert [(check.name, check.counts, check.result) for check in checks] == [
        ("tests/a.py::test_a", {"x": 1}, "failed"), ("tests/a.py::test_a", {"y": 1}, "failed"),
    ]  # fmt: skip
