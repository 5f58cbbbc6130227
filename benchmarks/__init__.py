"""The renderer beside its peers on a CPU: ``make bench``, or ``python -m benchmarks [--quick | --smoke]``."""
