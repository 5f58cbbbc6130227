"""Virtual environments in which the project's own packages are visible, and not installed again."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

LINK = "project_environment.pth"


def set_up(folder: Path, stamp: str, packages: Sequence[str], install: Callable[[Path], None]) -> None:
    """Make the environment by ``install`` where it is absent or has other packages, and show it those beside it.

    The file ``stamp`` in it names what was installed; it is written last.
    """
    wanted = "\n".join(packages) + "\n"
    if not ((folder / stamp).is_file() and (folder / stamp).read_text() == wanted):
        install(folder)
    link_packages(folder)
    (folder / stamp).write_text(wanted)


def pip_install(folder: Path, packages: Sequence[str], *options: str) -> bool:
    """Install wheels into an environment; pip prints what goes wrong. Returns whether all went well."""
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return subprocess.run([*pip, "--only-binary=:all:", *options, *packages], check=False).returncode == 0


def link_packages(folder: Path) -> None:
    """Append the packages of the Python that runs this, editable installs included, to an environment's path.

    The link is relative to the environment where the two lie side by side, so that both can be moved together.
    """
    [packages] = folder.glob("lib/python*/site-packages")
    own = Path(sysconfig.get_path("purelib"))
    relative = os.path.relpath(own, folder.resolve())
    (packages / LINK).write_text(f"import os, site, sys; site.addsitedir(os.path.join(sys.prefix, {relative!r}))\n")
