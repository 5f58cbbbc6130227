"""Makes `import oracle` find tests/oracle. Appended, so that no folder of tests can hide an installed package."""

import sys
from pathlib import Path

import pytest

_TESTS = str(Path(__file__).resolve().parents[1])
if _TESTS not in sys.path:
    sys.path.append(_TESTS)


@pytest.fixture
def figure(record_property):
    """Keeps a figure of a comparison for the summary at the end: figure("op dtype what", number)."""
    return lambda key, value: record_property(f"oracle: {key}", value if isinstance(value, int) else float(value))


def pytest_terminal_summary(terminalreporter) -> None:
    """Prints what the comparisons with the oracle counted: excused pixels and the largest errors, by op and dtype."""
    totals: dict[str, list[float]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key.startswith("oracle: "):
                    totals.setdefault(key.removeprefix("oracle: "), []).append(value)
    if totals:
        terminalreporter.section("compared with the float64 oracle")
    for key, values in sorted(totals.items()):
        total = max(values) if "largest" in key else sum(values)
        terminalreporter.write_line(f"{key}: {total:.3g}" if "largest" in key else f"{key}: {total:,}")
