"""What a page says of the sources that its figures are of."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def current_commit() -> str:
    """Its hash; it says so where files differ from it."""
    describe = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty= and changes to it"]
    return subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
