"""Entry: ``python -m benchmarks [--quick | --smoke]``."""

import sys

from .cli import main

sys.exit(main())
