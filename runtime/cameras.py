"""Camera matrices in numpy, with the frames and conventions of ``dibr_deploy.cameras``: a service needs no torch."""

from __future__ import annotations

import numpy as np


def perspective(fov_y: float, aspect: float = 1.0, near: float = 0.1, far: float = 100.0) -> np.ndarray:
    """View to clip, [4, 4] float64: full vertical opening angle in radians, width / height, clipping planes."""
    y_scale = 1.0 / np.tan(fov_y / 2)
    depth = near - far
    return np.array(
        [
            [y_scale / aspect, 0, 0, 0],
            [0, y_scale, 0, 0],
            [0, 0, (far + near) / depth, 2 * far * near / depth],
            [0, 0, -1, 0],
        ]
    )


def orbit(azimuth: float, elevation: float, distance: float, target: np.ndarray | None = None) -> np.ndarray:
    """World to view, [4, 4] float64, for a camera on a sphere around ``target`` [3] (default: the origin).

    azimuth: angle around +y in radians, 0 puts the camera on +z, pi/2 on +x; elevation: angle above the xz plane.
    """
    sin_a, cos_a, sin_e, cos_e = np.sin(azimuth), np.cos(azimuth), np.sin(elevation), np.cos(elevation)
    backward = np.array([cos_e * sin_a, sin_e, cos_e * cos_a])
    rotation = np.array([[cos_a, 0, -sin_a], [-sin_e * sin_a, cos_e, -sin_e * cos_a], backward])
    center = np.zeros(3) if target is None else np.asarray(target, dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = -rotation @ (center + distance * backward)
    return matrix
