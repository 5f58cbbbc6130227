"""A small round through every kernel on the device, for compute-sanitizer.

    python -m gpu.sanitized_ops [all | out_of_bounds]

Without torch, whose own kernels and caching allocator would be looked at too."""

from __future__ import annotations

import sys

from cuda_backend import sanitized_cases

from dibr_deploy import _native
from gpu.driver import Context, DriverLibrary


def main() -> None:
    library = DriverLibrary(_native.library_path("libdibr.so"), Context(primary=True))
    if sys.argv[1] != "all":
        return sanitized_cases.plant(library, sys.argv[1])
    for done in sanitized_cases.run_all(library, small=False):
        print(done, flush=True)


if __name__ == "__main__":
    main()
