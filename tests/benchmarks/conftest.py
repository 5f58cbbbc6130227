"""The benchmark is no part of the installed package: its folder is found through the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # before tests/, whose folder of this name is no package
