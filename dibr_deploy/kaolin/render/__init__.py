"""As ``kaolin.render``."""

from . import camera, mesh

__all__ = ["camera", "mesh"]
