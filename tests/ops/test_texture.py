"""Texture, with mipmaps too, against the float64 oracle, values by hand and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import compare, kernel, oracle
from oracle.kernel import tensor

from dibr_deploy import ops

DTYPES = [np.float32, np.float64]
WRAPS = ["clamp", "repeat", "mirror"]
SIZES = [(1, 1), (1, 6), (5, 1), (7, 4), (64, 32)]


def random_input(dtype, size, batch=2, shared=False, channels=3, image=(23, 41)):
    """texture [B or 1, C, Ht, Wt] and uv [B, H, W, 2] from -2.5 to 3.5."""
    rng = np.random.default_rng(0)
    texels = rng.normal(size=(1 if shared else batch, channels, *size)).astype(dtype)
    return texels, rng.uniform(-2.5, 3.5, (batch, *image, 2)).astype(dtype)


@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_oracle(dtype, mode, wrap, size, shared, figure):
    """Nearest jumps at texel borders: pixels within the rounding of the texel coordinate of one are left out there."""
    texels, uv = random_input(dtype, size, shared=shared)
    actual = ops.texture(tensor(texels), tensor(uv), filter=mode, wrap=wrap).numpy()
    expected = oracle.texture(texels, uv, filter=mode, wrap=wrap)
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    excused = np.zeros(uv.shape[:3], dtype=bool)
    if mode == "nearest":
        excused = oracle.texel_clearance(uv, *size, mode) <= 4 * max(size) * np.finfo(dtype).eps
    error = np.abs(actual - expected)[~excused].max()
    kind = np.dtype(dtype).name
    figure(f"texture {kind} pixels", excused.size)
    figure(f"texture {kind} pixels on a texel border left out", int(excused.sum()))
    figure(f"texture {kind} {mode} largest error", error)
    assert excused.mean() <= 1e-3
    assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]


def rows_of_every_kind(dtype, columns=41):
    """uv [1, 4, columns, 2]: a row inside of the texture, one at and beyond its borders, one of the same sample again
    and again, and the first one with two samples that are no numbers."""
    rng = np.random.default_rng(7)
    inside, anywhere = rng.uniform(0.2, 0.8, (columns, 2)), rng.uniform(-1.5, 2.5, (columns, 2))
    broken = inside.copy()
    broken[5, 0], broken[columns - 1, 1] = np.nan, np.inf
    return np.stack([inside, anywhere, np.tile(inside[:1], (columns, 1)), broken])[None].astype(dtype)


def levels_of_every_kind(dtype, columns=41):
    """Mip levels [1, 4, columns] for these: from the texture to the last of four levels, anywhere, the same everywhere,
    and whole ones with two that are no number and beyond every chain."""
    rng = np.random.default_rng(8)
    whole = rng.integers(-1, 5, columns).astype(np.float64)
    whole[3], whole[7] = np.nan, np.inf
    rows = [np.linspace(0, 3, columns), rng.uniform(-1, 5, columns), np.full(columns, 1.25), whole]
    return np.stack(rows)[None].astype(dtype)


def lookups_of_every_kind(dtype, mode):
    """uv, and the mip level where the filter takes one, by the names of the arguments."""
    arrays = {"uv": rows_of_every_kind(dtype)}
    if mode == "trilinear":
        arrays["mip_level"] = levels_of_every_kind(dtype)
    return {name: tensor(array) for name, array in arrays.items()}


FILTERS = ["nearest", "bilinear", "trilinear"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("mode", FILTERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_does_not_depend_on_those_beside_it(dtype, mode, wrap, channels):
    """Neither its value nor its gradients in uv and mip level, bit for bit: a whole image beside images of a pixel."""
    texels, _ = random_input(dtype, (12, 9), batch=1, channels=channels)

    together = lookups_of_every_kind(dtype, mode)
    alone = {name: lookup.reshape(-1, 1, 1, *lookup.shape[3:]) for name, lookup in together.items()}

    def results(lookups):
        leaves = {name: lookup.clone().requires_grad_() for name, lookup in lookups.items()}
        output = ops.texture(tensor(texels), **leaves, filter=mode, wrap=wrap)
        gradients = torch.autograd.grad(output.square().sum(), list(leaves.values()))
        return [result.flatten() for result in (output, *gradients)]

    assert all(map(torch.equal, results(together), results(alone)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_of_every_kind_equal_the_oracle_and_float64_gradients(dtype, channels):
    """Rows in which all texels are neighbours are sampled in another way than those with a border."""
    texels, _ = random_input(dtype, (12, 9), batch=1, channels=channels)
    uv = rows_of_every_kind(dtype)

    def gradients(dtype):
        inputs = [torch.from_numpy(array).to(dtype).requires_grad_() for array in (texels, uv)]
        return torch.autograd.grad(ops.texture(*inputs, wrap="mirror").square().sum(), inputs)

    tolerance = compare.VALUE_TOLERANCE[np.dtype(dtype)]
    actual = ops.texture(tensor(texels), tensor(uv), wrap="mirror").numpy()
    assert np.abs(actual - oracle.texture(texels, uv, wrap="mirror")).max() <= tolerance
    for single, double in zip(gradients(torch.from_numpy(uv).dtype), gradients(torch.float64), strict=True):
        assert (single - double).abs().max() <= tolerance * double.abs().max()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", FILTERS)
def test_texels_of_16_bits_are_sampled_in_float32(mode, half):
    texels, _ = random_input(np.float32, (12, 9), batch=1, channels=3)
    stored, lookups = tensor(texels).to(half), lookups_of_every_kind(np.float32, mode)
    expected = ops.texture(stored.float(), **lookups, filter=mode).to(half)
    assert torch.equal(ops.texture(stored, **lookups, filter=mode), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        ("clamp", [1, 1, 1, 1.5, 2, 3, 4, 4, 4]),
        ("repeat", [3, 4, 2.5, 1.5, 2, 3, 4, 1.75, 2]),
        ("mirror", [2, 1, 1, 1.5, 2, 3, 4, 4, 3]),
    ],
)
def test_a_row_of_four_texels_by_hand(wrap, expected, dtype):
    """Texels 1 2 3 4 with centres at 1/8, 3/8, 5/8, 7/8."""
    u = torch.tensor([-0.375, -0.125, 0.0, 0.25, 0.375, 0.625, 0.875, 1.0625, 1.375], dtype=dtype)
    uv = torch.stack([u, torch.full_like(u, 0.5)], dim=-1)[None, None]
    sampled = ops.texture(torch.tensor([[[[1, 2, 3, 4]]]], dtype=dtype), uv, wrap=wrap)
    assert sampled[0, 0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_v_zero_is_the_top_row(mode):
    texels = torch.tensor([[[[1.0, 2], [3, 4]]]])
    uv = torch.tensor([[[[0.25, 0.25], [0.75, 0.25]], [[0.25, 0.75], [0.75, 0.75]]]])
    assert ops.texture(texels, uv, filter=mode)[0, :, :, 0].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("wrap", WRAPS)
def test_nearest_takes_the_texel_that_contains_the_point(wrap):
    """Borders belong to the texel that begins there."""
    texels = torch.arange(4.0).reshape(1, 1, 1, 4)
    u = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999, 1.0, -0.0001])
    uv = torch.stack([u, torch.full_like(u, 0.5)], dim=-1)[None, None]
    beyond = {"clamp": [3, 0], "repeat": [0, 3], "mirror": [3, 0]}[wrap]
    assert ops.texture(texels, uv, filter="nearest", wrap=wrap)[0, 0, :, 0].tolist() == [0, 0, 1, 2, 3, 3, *beyond]


def uv_away_from_creases(size, count, seed, clearance=1e-3):
    """[1, 1, count, 2] uv from -1.5 to 2.5, none within `clearance` texels of a line through texel centres."""
    uv = np.random.default_rng(seed).uniform(-1.5, 2.5, (8 * count, 2))
    return uv[oracle.texel_clearance(uv, *size, "bilinear") > clearance][None, None, :count]


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (1, 5)], ids=str)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
def test_gradcheck_in_texture_and_uv(size, wrap, shared):
    texels, _ = random_input(np.float64, size, shared=shared, channels=2)
    uv = np.concatenate([uv_away_from_creases(size, 9, seed) for seed in (1, 2)])
    inputs = tensor(texels).requires_grad_(), tensor(uv).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, c: ops.texture(t, c, wrap=wrap), inputs, eps=1e-6)


@pytest.mark.parametrize("wrap", WRAPS)
def test_gradcheck_of_nearest_in_texture_and_none_in_uv(wrap):
    texels, uv = random_input(np.float64, (3, 4), image=(3, 3))
    uv = tensor(uv).requires_grad_()
    inputs = tensor(texels).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: ops.texture(t, uv.detach(), filter="nearest", wrap=wrap), (inputs,))
    output = ops.texture(inputs, uv, filter="nearest", wrap=wrap)
    assert (torch.autograd.grad(output.sum(), uv)[0] == 0).all()


@pytest.mark.parametrize("wrap", WRAPS)
def test_gradient_at_a_crease_is_the_limit_from_larger_uv(wrap):
    """The surface has creases at u = (i + 1/2) / n; the cell that begins there gives the gradient, in every wrap."""
    size = (4, 8)
    texels = tensor(np.random.default_rng(4).normal(size=(1, 1, *size)))
    columns, rows = np.meshgrid(np.arange(-8, 17), np.arange(-4, 9))
    creases = tensor(np.stack([(columns + 0.5) / 8, (rows + 0.5) / 4], axis=-1)[None])

    def gradient(shift):
        uv = (creases + shift).requires_grad_()
        return torch.autograd.grad(ops.texture(texels, uv, wrap=wrap).sum(), uv)[0]

    on_crease, above, below = gradient(0.0), gradient(1e-9), gradient(-1e-9)
    torch.testing.assert_close(on_crease, above, rtol=0, atol=1e-6)
    assert ((on_crease - below).abs() > 1e-3).any()


def test_no_gradient_in_uv_beyond_a_clamped_border():
    texels, _ = random_input(np.float64, (4, 4))
    beyond = torch.tensor([[[[-0.3, 0.4], [1.4, 0.6]]]] * 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(ops.texture(tensor(texels), beyond).sum(), beyond)
    assert (gradient[..., 0] == 0).all()
    assert (gradient[..., 1] != 0).all()


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_float32_gradient_equals_float64(wrap, mode, figure):
    texels, uv = random_input(np.float32, (16, 32))
    clear = oracle.texel_clearance(uv, 16, 32, mode) > 1e-4
    uv[~clear] = 0.51

    def gradients(dtype):
        inputs = [torch.from_numpy(array).to(dtype).requires_grad_() for array in (texels, uv)]
        output = ops.texture(*inputs, filter=mode, wrap=wrap)
        return torch.autograd.grad(output.square().sum(), inputs)

    for label, single, double in zip(
        ("texture", "uv"), gradients(torch.float32), gradients(torch.float64), strict=True
    ):
        error = ((single - double).abs().max() / double.abs().max().clamp(min=1)).item()
        figure(f"texture_backward float32 {label} largest error / largest gradient", error)
        assert error <= compare.VALUE_TOLERANCE[np.dtype(np.float32)]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_uv_that_is_not_finite_samples_zero_without_gradient(dtype, wrap, mode):
    texels, uv = random_input(dtype, (5, 6), image=(2, 3))
    uv[0, 0, 0], uv[0, 0, 1], uv[1, 1, 2] = [np.nan, 0.5], [0.5, np.inf], [-np.inf, np.nan]
    bad = ~np.isfinite(uv).all(axis=-1)
    inputs = [tensor(texels).requires_grad_(), tensor(uv).requires_grad_()]
    output = ops.texture(*inputs, filter=mode, wrap=wrap)
    gradients = torch.autograd.grad(output.square().sum(), inputs)
    assert (output[torch.from_numpy(bad)] == 0).all()
    assert (gradients[1][torch.from_numpy(bad)] == 0).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    cleaned = [tensor(texels).requires_grad_(), tensor(np.where(bad[..., None], 0, uv))]
    others = ops.texture(*cleaned, filter=mode, wrap=wrap) * torch.from_numpy(~bad)[..., None]
    assert torch.equal(torch.autograd.grad(others.square().sum(), cleaned[0])[0], gradients[0])


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("value", [2.0**31, -(2.0**33), 1e18, -1e20, 3e38])
def test_a_huge_uv_samples_some_texel(value, wrap, mode):
    """Texel indices beyond any integer: clamp still gives the border, the others some texel of the texture."""
    texels = np.random.default_rng(0).uniform(1, 2, (1, 1, 4, 8)).astype(np.float32)
    uv = tensor(np.array([[[[value, 0.125]]]], dtype=np.float32)).requires_grad_()
    sampled = ops.texture(tensor(texels), uv, filter=mode, wrap=wrap)
    assert 1 <= sampled.item() <= 2
    assert torch.isfinite(torch.autograd.grad(sampled.sum(), uv)[0]).all()
    if wrap == "clamp":
        assert sampled.item() == texels[0, 0, 0, 7 if value > 0 else 0]


LEVELS = [(1, 1), (1, 6), (5, 1), (7, 4), (13, 9), (16, 16), (64, 32)]


def random_levels(dtype, shape, last, seed=3):
    """[B, H, W] from below the first level to beyond the last."""
    return np.random.default_rng(seed).uniform(-1, last + 1, shape).astype(dtype)


def last_level(size):
    return max(size).bit_length() - 1


@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
@pytest.mark.parametrize("size", LEVELS, ids=str)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_trilinear_equals_the_oracle(dtype, wrap, size, shared, figure):
    texels, uv = random_input(dtype, size, shared=shared)
    levels = random_levels(dtype, uv.shape[:3], last_level(size))
    actual = ops.texture(tensor(texels), tensor(uv), filter="trilinear", wrap=wrap, mip_level=tensor(levels)).numpy()
    expected = oracle.trilinear(texels, uv, levels, wrap=wrap)
    assert actual.dtype == dtype
    error = np.abs(actual - expected).max()
    figure(f"texture {np.dtype(dtype).name} trilinear largest error", error)
    assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]


def test_level_zero_is_bilinear_bit_for_bit_and_the_last_is_the_mean():
    texels, uv = random_input(np.float32, (13, 6))
    texels, uv = tensor(texels), tensor(uv)

    def at(level):
        levels = torch.full(uv.shape[:3], level)
        return ops.texture(texels, uv, filter="trilinear", wrap="repeat", mip_level=levels)

    for level in (0.0, -0.5, -torch.inf):
        assert torch.equal(at(level), ops.texture(texels, uv, wrap="repeat"))
    mean = texels.double().mean(dim=(2, 3))[:, None, None].expand(-1, *uv.shape[1:3], -1)
    for level in (3.0, 7.5, torch.inf):
        torch.testing.assert_close(at(level).double(), mean, rtol=0, atol=1e-6)


def test_a_mip_chain_by_hand():
    """Five texels become two of 2.5 texels each, then one; between two levels the values are blended."""
    texels = torch.tensor([[[[1.0, 2, 4, 8, 16]]]])
    level_1 = [(1 + 2 + 4 / 2) / 2.5, (4 / 2 + 8 + 16) / 2.5]
    uv = torch.tensor([[[[0.25, 0.5], [0.75, 0.5], [0.25, 0.5], [0.75, 0.5], [0.3, 0.5]]]])
    levels = torch.tensor([[[1.0, 1.0, 1.5, 1.25, 2.0]]])
    sampled = ops.texture(texels, uv, filter="trilinear", mip_level=levels)[0, 0, :, 0]
    mean = 31 / 5
    expected = [*level_1, (level_1[0] + mean) / 2, 0.75 * level_1[1] + 0.25 * mean, mean]
    torch.testing.assert_close(sampled, torch.tensor(expected))


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (1, 5), (7, 6)], ids=str)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
def test_gradcheck_of_trilinear_in_texture_uv_and_mip_level(size, wrap, shared):
    texels, _ = random_input(np.float64, size, shared=shared, channels=2)
    rng = np.random.default_rng(5)
    uv = rng.uniform(-1.5, 2.5, (2, 1, 400, 2))
    sizes = [(max(1, size[0] >> k), max(1, size[1] >> k)) for k in range(last_level(size) + 1)]
    clear = np.all([oracle.texel_clearance(uv, *shape, "bilinear") > 1e-3 for shape in sizes], axis=0)
    uv = np.stack([image[keep][:9] for image, keep in zip(uv, clear, strict=True)])[:, None]
    levels = rng.integers(-1, last_level(size) + 1, uv.shape[:3]) + rng.uniform(0.01, 0.99, uv.shape[:3])
    inputs = [tensor(array).requires_grad_() for array in (texels, uv, levels)]
    assert torch.autograd.gradcheck(
        lambda t, c, m: ops.texture(t, c, filter="trilinear", wrap=wrap, mip_level=m), inputs, eps=1e-6
    )


def test_the_gradient_of_a_mip_level_is_the_limit_from_larger_levels():
    """And 0 where the level is clamped: below 0, and from the last level on."""
    texels = tensor(np.random.default_rng(6).normal(size=(1, 1, 8, 8)))
    uv = torch.full((1, 1, 6, 2), 0.3, dtype=torch.float64)

    def gradient(shift):
        levels = (torch.tensor([[[-1.0, 0, 1, 2, 3, 4]]], dtype=torch.float64) + shift).requires_grad_()
        sampled = ops.texture(texels, uv, filter="trilinear", mip_level=levels)
        return torch.autograd.grad(sampled.sum(), levels)[0][0, 0]

    torch.testing.assert_close(gradient(0.0), gradient(1e-9), rtol=0, atol=1e-12)
    assert (gradient(0.0)[1:4] != 0).all()
    assert (gradient(0.0)[[0, 4, 5]] == 0).all()
    assert gradient(-1e-9)[1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_level_that_is_no_number_samples_zero_without_gradient(dtype):
    texels, uv = random_input(dtype, (5, 6), image=(2, 3))
    levels = random_levels(dtype, uv.shape[:3], 2)
    uv[0, 0, 0], levels[1, 1, 2] = [np.nan, 0.5], np.nan
    inputs = [tensor(array).requires_grad_() for array in (texels, uv, levels)]
    output = ops.texture(inputs[0], inputs[1], filter="trilinear", mip_level=inputs[2])
    gradients = torch.autograd.grad(output.square().sum(), inputs)
    assert (output[0, 0, 0] == 0).all()
    assert (output[1, 1, 2] == 0).all()
    assert (output[0, 1] != 0).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert (gradients[1][1, 1, 2] == 0).all()
    assert gradients[2][1, 1, 2] == gradients[2][0, 0, 0] == 0


def test_a_minified_checkerboard_is_grey_where_bilinear_flickers():
    """What mipmaps are for: 64 texels under every pixel average out; a point sample shows one or two of them."""
    board = torch.from_numpy(np.indices((256, 256)).sum(axis=0) % 2).float()[None, None]
    grid = (torch.arange(8) + 0.5) / 8 + 0.5 / 256
    uv = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), dim=-1)[None]
    level = torch.full((1, 8, 8), 5.0)
    assert (ops.texture(board, uv, filter="trilinear", mip_level=level) - 0.5).abs().max() < 1e-6
    assert (ops.texture(board, uv) - 0.5).abs().min() > 0.4


def test_an_empty_batch_and_no_channels():
    for batch, channels in ((0, 3), (2, 0)):
        texels = torch.zeros(batch, channels, 2, 2, requires_grad=True)
        uv = torch.zeros(batch, 4, 5, 2, requires_grad=True)
        output = ops.texture(texels, uv)
        assert output.shape == (batch, 4, 5, channels)
        gradients = torch.autograd.grad(output.sum(), [texels, uv])
        assert [g.shape for g in gradients] == [texels.shape, uv.shape]
        assert (gradients[1] == 0).all()
        levels = torch.ones(batch, 4, 5, requires_grad=True)
        output = ops.texture(texels, uv, filter="trilinear", mip_level=levels)
        assert output.shape == (batch, 4, 5, channels)
        gradients = torch.autograd.grad(output.sum(), [texels, uv, levels])
        assert [g.shape for g in gradients] == [texels.shape, uv.shape, levels.shape]


@pytest.mark.parametrize("mode", ["bilinear", "trilinear"])
@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
def test_same_bits_in_every_run_and_for_every_number_of_threads(shared, mode):
    """Many pixels pull at each of a few texels, so the order of the sum would show."""
    texels, uv = random_input(np.float32, (3, 5), batch=3, shared=shared, image=(120, 100))
    levels = tensor(random_levels(np.float32, uv.shape[:3], 2)) if mode == "trilinear" else None

    def run():
        inputs = [tensor(texels).requires_grad_(), tensor(uv).requires_grad_()]
        output = ops.texture(*inputs, wrap="mirror", filter=mode, mip_level=levels)
        return [output, *torch.autograd.grad(output.square().sum(), inputs)]

    kernel.assert_same_bits_for_every_number_of_threads(run)


def test_a_second_derivative_is_refused_by_name():
    texels, uv = (tensor(array).requires_grad_() for array in random_input(np.float64, (3, 4)))
    (gradient,) = torch.autograd.grad(ops.texture(texels, uv).square().sum(), uv, create_graph=True)
    with pytest.raises(RuntimeError, match="texture"):
        gradient.square().sum().backward()
