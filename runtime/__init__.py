"""Running exported models: numpy in, numpy out. Nothing here imports torch."""

from .session import Session

__all__ = ["Session"]
