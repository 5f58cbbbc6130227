"""The tests of the kernels (tests/cuda_backend) on the device itself: parity with the CPU backend and the oracle."""

from __future__ import annotations

import pytest
from cuda_backend.test_kernels import (  # noqa: F401
    test_a_tile_whose_list_overflows_walks_all_faces,
    test_antialias,
    test_antialias_agrees_with_the_oracle,
    test_antialias_is_the_cpu_backend_bit_for_bit,
    test_deterministic_gradients_do_not_depend_on_the_order,
    test_deterministic_gradients_keep_what_is_not_finite,
    test_indices_out_of_range_count_as_absent,
    test_interpolate,
    test_raster_gradient,
    test_rasterize_across_tile_and_batch_borders,
    test_rasterize_agrees_with_the_oracle,
    test_rasterize_is_the_cpu_backend_bit_for_bit,
    test_sixteen_bit_attributes_and_textures,
    test_soft_mask,
    test_soft_mask_agrees_with_the_oracle,
    test_soft_mask_gradient,
    test_soft_mask_gradient_is_finite_where_a_centre_lies_on_two_edges,
    test_texture,
    test_trilinear_texture,
)
from cuda_backend.test_render import (  # noqa: F401
    test_16_bit_storage,
    test_nothing_is_written_that_is_not_asked_for,
    test_render_is_the_cpu_backend,
    test_render_is_the_single_ops_bit_for_bit,
)
from cuda_backend.test_render import (  # noqa: F401
    test_indices_out_of_range_count_as_absent_on_cuda as test_render_indices_out_of_range_count_as_absent,
)

pytestmark = pytest.mark.gpu
