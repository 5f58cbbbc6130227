"""One device. DIBR_TEST_PYCUDA="broken" makes CUDA refuse."""

import os


class Error(Exception):
    pass


def init():
    if os.environ.get("DIBR_TEST_PYCUDA") == "broken":
        raise Error("cuInit failed: unknown error")


class Device:
    def __init__(self, index):
        self.index = index

    @staticmethod
    def count():
        return 1

    def name(self):
        return "Double of a GPU"

    def compute_capability(self):
        return (8, 9)

    def retain_primary_context(self):
        return object()
