"""As ``kaolin.ops``."""

from . import mesh, pointcloud

__all__ = ["mesh", "pointcloud"]
