"""A TensorRT, or by its other name a TensorRT-RTX, that loads plugin libraries and starts, and no more.

DIBR_TEST_TENSORRT: "no plugins" (its registry lists none), "one missing" (it lists all but Texture), "refuses" (it does
not load them), "old plugins" (of an older op schema), "no start", or "version ..."."""

import os
from types import SimpleNamespace

from dibr_deploy.runtime import schema

MODE = os.environ.get("DIBR_TEST_TENSORRT", "")

__version__ = {"tensorrt": "10.16.1.11", "tensorrt_rtx": "1.7.1.116"}[__name__]
if MODE.startswith("version "):
    __version__ = MODE.removeprefix("version ")


class ILogger:
    ERROR = 1

    def __init__(self):
        pass


class IErrorRecorder:
    def __init__(self):
        pass


class Registry:
    def __init__(self):
        self.all_creators = [SimpleNamespace(name="Other", plugin_namespace="", plugin_version="1")]

    def load_library(self, path):
        if MODE == "refuses":
            return None
        if MODE != "no plugins":
            version = "0" if MODE == "old plugins" else "1"
            names = [name for name in schema.OPS if MODE != "one missing" or name != "Texture"]
            creators = [
                SimpleNamespace(name=name, plugin_namespace="ai.dibr", plugin_version=version) for name in names
            ]
            self.all_creators += creators
        return object()


REGISTRY = Registry()


def get_plugin_registry():
    return REGISTRY


class Runtime:
    def __init__(self, logger):
        if MODE == "no start":
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
