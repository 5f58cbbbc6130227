"""As ``kaolin.io.materials``: the colour of a surface."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass
class PBRMaterial:
    """A material; of its many parts the diffuse texture alone, which DIB-R optimises."""

    diffuse_texture: Tensor | None = None
    """[3, Ht, Wt] in 0..1, the first row at v = 1."""
