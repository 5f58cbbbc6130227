"""As ``kaolin.metrics``."""

from . import render

__all__ = ["render"]
