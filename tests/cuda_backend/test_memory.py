"""Device memory beyond inputs and outputs, from the workspace functions: bounded, linear, and as documented."""

from __future__ import annotations

import pytest

from cuda_backend import performance_model
from cuda_backend.abi import PARAMS, Library
from cuda_backend.performance_model import DOCUMENT, generated, memory_table, workspace

FORWARD = [op for op in PARAMS if not op.endswith("backward")]
SLACK = 256  # bytes: alignment of each array, and the end of each list of tiles


@pytest.mark.parametrize("dtype", [0, 1], ids=["float32", "float64"])
@pytest.mark.parametrize("op", FORWARD)
def test_forward_needs_at_most_24_bytes_a_pixel_and_64_a_face(library: Library, op: str, dtype: int) -> None:
    for size, faces in ((512, 20_480), (512, 0), (64, 20_480), (1024, 81_920)):
        needed = workspace(library, op, dtype, height=size, width=size, faces=faces)
        assert needed <= 24 * size * size + 64 * faces


@pytest.mark.parametrize("deterministic", [0, 1])
@pytest.mark.parametrize("dtype", [0, 1], ids=["float32", "float64"])
@pytest.mark.parametrize("op", PARAMS)
def test_memory_grows_linearly(library: Library, op: str, dtype: int, deterministic: int) -> None:
    """Twice the pixels, faces, vertices, texels or images: at most twice the memory; and the same step each time."""

    def size(**sizes: int) -> int:
        return workspace(library, op, dtype, deterministic=deterministic, **sizes)

    for name, base in (("height", 512), ("faces", 4096), ("vertices", 4096), ("texture_height", 256)):
        first, second, third = (size(**{name: times * base}) for times in (1, 2, 3))
        assert abs((third - second) - (second - first)) <= SLACK, name
        assert second <= 2 * first + SLACK, name
    one, two, three = (size(batch=n, attribute_batch=n, texture_batch=n) for n in (1, 2, 3))
    assert abs((three - two) - (two - one)) <= SLACK
    assert two <= 2 * one + SLACK
    assert size(knum=3000) == size(knum=1) if "soft_mask" in op else True


@pytest.mark.parametrize("side", [1, 5, 256, 1000])
def test_a_mip_chain_takes_a_third_of_its_texture(library: Library, side: int) -> None:
    """Two thirds for a row or a column of texels, which halve along one axis alone."""
    sizes = {"texture_height": side, "texture_width": side, "filter": 2}
    bytes_of_texture = 3 * side * side * 4
    assert workspace(library, "texture", 0, **sizes) <= bytes_of_texture / 3 + SLACK
    assert workspace(library, "texture", 0, **(sizes | {"filter": 1})) == 0
    backward = workspace(library, "texture_backward", 0, **sizes)
    assert bytes_of_texture <= backward <= 5 / 3 * bytes_of_texture + SLACK


def test_the_documented_table_is_this_one(library: Library) -> None:
    documented = generated(DOCUMENT.read_text(), "memory")[1]
    assert documented == memory_table(library), f"run python {performance_model.__file__}"
