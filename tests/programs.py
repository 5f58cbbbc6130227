"""Our programs, as tests call them: scripts as modules, and commands in a process of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def script(name: str) -> ModuleType:
    """``scripts/NAME.py``, imported. It finds others beside it, as it does where it is run."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def dibr_without_torch(arguments: Sequence[str]) -> str:
    """What the command prints. It must end well, and load neither torch nor any other package of the training side."""
    code = (
        "import sys\n"
        "from dibr_deploy.cli import main\n"
        f"assert main({list(arguments)!r}) == 0\n"
        "loaded = {'torch', 'onnx', 'onnxscript'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
