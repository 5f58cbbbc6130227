"""As ``kaolin.io``: what DIB-R's tutorial reads and writes."""

from . import materials, obj, render

__all__ = ["materials", "obj", "render"]
