"""`dibr`, which stops for good within a step and waits to be killed.

python stopping.py STEP FOLDER dibr-arguments...    # when STEP steps are done: FOLDER/(id of the process)
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from dibr_deploy.cli import main
from dibr_deploy.training.runs import TrainingRun


def stop(step: int, folder: Path) -> None:
    go_on = TrainingRun._follow_schedule

    def follow_schedule(run: TrainingRun[Any], *optimizers: Any) -> None:
        if run.step == step:
            (folder / str(os.getpid())).touch()
            while True:
                time.sleep(60)
        go_on(run, *optimizers)

    TrainingRun._follow_schedule = follow_schedule  # type: ignore[method-assign]


if __name__ == "__main__":
    stop(int(sys.argv[1]), Path(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
