"""Errors that a user can act on. The command line prints them as one sentence, without a traceback."""

from __future__ import annotations


class DibrError(ValueError):
    """Input that dibr_deploy cannot work with; the message names it, what was expected and what came."""


class DoorAbsent(DibrError):
    """A way to run the model that cannot open here, whatever is wrong with nothing else: a package, a provider, a
    library or a device is missing, or the bundle has no engine. ``dibr verify`` lists it as absent, not as failed."""


class EngineRefused(DoorAbsent):
    """TensorRT is here, and so is an engine, but for another version, device or plugin library. Another way to run the
    model may still open; ``dibr verify`` counts it as a failure."""


def one_line(error: object) -> str:
    """An error's words, or any others, without line breaks."""
    return " ".join(str(error).split())
