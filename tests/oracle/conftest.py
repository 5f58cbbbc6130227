"""Makes `import oracle` find tests/oracle. Appended, so that no folder of tests can hide an installed package."""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[1])
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
