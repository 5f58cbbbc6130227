"""The renderer's operators as differentiable torch functions.

Every function checks its arguments, then calls one operator of ``torch.ops.dibr``. All of them work under autograd,
``torch.compile`` and ``torch.export``, batch and image size may be symbolic, and results are the same, bit for bit,
for any number of threads. Shapes: B images, V vertices, F faces, H rows, W columns. Row 0 is the top of the image, and
pixel (row j, column i) has its centre at ``x = (2 i + 1 - W) / W``, ``y = (H - 2 j - 1) / H`` in normalised device
coordinates (NDC), x to the right and y up.

Real arguments are float32 or float64, the same for the whole call; attributes, textures and images to be antialiased
may be float16 or bfloat16 beside float32 where no gradient is asked for. Bad arguments raise
:class:`~dibr_deploy.errors.DibrError` before anything is computed; a face that names a vertex that does not exist
raises RuntimeError on the CPU and is not drawn on CUDA, where asking would mean waiting for the device. Second
derivatives are not offered: asking for one raises RuntimeError naming the operator.

The method is that of Chen et al., "Learning to Predict 3D Objects with an Interpolation-based Differentiable
Renderer", NeurIPS 2019 (DIB-R).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch._C._functorch import unwrap_if_dead

from dibr_deploy import _native
from dibr_deploy.errors import DibrError

TORCH_FLOOR = (2, 10)


def _load_library() -> None:
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if release < TORCH_FLOOR:
        raise ImportError(f"dibr_deploy needs torch 2.10 or newer, got {torch.__version__}")
    torch.ops.load_library(str(_native.library_path("libdibr_torch.so")))


_load_library()

# The values are those of dibr.h.
CULL = {"none": 0, "back": 1}
FILTER = {"nearest": 0, "bilinear": 1, "trilinear": 2}
WRAP = {"clamp": 0, "repeat": 1, "mirror": 2}

_REAL = (torch.float32, torch.float64)
_REAL_OR_HALF = (*_REAL, torch.float16, torch.bfloat16)
_INTEGER = (torch.int32, torch.int64)
_PLAIN = frozenset((Tensor, torch.nn.Parameter))
_INT32 = torch.iinfo(torch.int32)


class Raster(NamedTuple):
    """What :func:`rasterize` returns."""

    face_index: Tensor
    """int32 [B, H, W]: index into ``faces`` of the visible face, -1 on background."""
    barycentrics: Tensor
    """[B, H, W, 3]: weights of the face's three vertices, which sum to 1; 0 on background."""
    depth: Tensor
    """[B, H, W]: NDC z / w, smaller is nearer; 1 on background."""


def rasterize(
    positions: Tensor,
    faces: Tensor,
    height: int,
    width: int,
    *,
    face_ranges: Tensor | None = None,
    face_valid: Tensor | None = None,
    perspective_correct: bool = True,
    cull: str = "none",
    depth_clip: bool = True,
) -> Raster:
    """Find the visible face at every pixel centre, and where in it the centre lies.

    Edges are inclusive; of faces at exactly the same depth the lowest index wins. Triangles are clipped at the near
    plane, but barycentrics always refer to the whole face. Degenerate faces and faces with a vertex that is not finite
    cover nothing.

    Args:
        positions: [B, V, 4] clip-space (x, y, z, w), OpenGL style: visible where ``-w <= x, y, z <= w``. [B, V, 3] is
            taken as w = 1. Differentiable, through ``barycentrics`` and ``depth``; coverage itself has no gradient.
        faces: [F, 3] int32 or int64 vertex indices, counter-clockwise seen from the front, shared by the batch.
        height: rows H of the image, 1 to 32768.
        width: columns W of the image, 1 to 32768.
        face_ranges: [B, 2] int32 or int64, (start, count) into ``faces`` for each image; None: every image has all
            faces.
        face_valid: [B, F] bool; False takes a face out of one image.
        perspective_correct: True: barycentrics are perspective-correct; False: the paper's screen-space weights.
        cull: "none", or "back" to drop faces that are clockwise on the screen.
        depth_clip: False keeps what lies nearer than the near plane or beyond the far plane, wherever w > 0.

    Returns:
        :class:`Raster` of face_index, barycentrics and depth.
    """
    op = "rasterize"
    positions = _clip_positions(op, positions)
    faces = _faces(op, faces, positions)
    ranges = _face_ranges(op, face_ranges, positions)
    valid = _face_valid(op, face_valid, positions, faces)
    rows, columns = _size(op, "height", height), _size(op, "width", width)
    cull_code = _choice(op, "cull", cull, CULL)
    arguments = (positions, faces, ranges, valid, rows, columns, bool(perspective_correct), cull_code, bool(depth_clip))
    return Raster(*_call(op, *arguments))


def interpolate(attributes: Tensor, faces: Tensor, face_index: Tensor, barycentrics: Tensor) -> Tensor:
    """Interpolate vertex attributes over the image: the sum of barycentrics times the attributes of the pixel's face.

    Args:
        attributes: [B, V, D], or [1, V, D] shared by the batch. Differentiable.
        faces: [F, 3] int32 or int64. They may differ from the faces that were rasterised as long as face k here is
            face k there: texture coordinates have vertices of their own.
        face_index: [B, H, W] int32 or int64, of :func:`rasterize`.
        barycentrics: [B, H, W, 3] of :func:`rasterize`. Differentiable.

    Returns:
        [B, H, W, D], 0 on background.

    Where face_index and barycentrics come straight from :func:`rasterize`, outside of ``torch.compile`` and of hooks
    for saved tensors (checkpoints), the backward pass goes from the output to attributes and positions at once.
    Barycentrics that retain their gradient or have a hook get theirs all the same; ``torch.autograd.grad`` with respect
    to them needs a ``clone()`` of them here.
    """
    op = "interpolate"
    _tensor(op, "attributes", attributes, _REAL_OR_HALF, ("B or 1", "V", "D"))
    _half_has_no_gradient(op, "attributes", attributes)
    faces = _faces(op, faces, attributes)
    face_index = _face_index(op, face_index, attributes)
    _tensor(op, "barycentrics", barycentrics, _REAL, ("B", "H", "W", 3))
    _like(op, "barycentrics", barycentrics, "attributes", attributes)
    _same_shape(op, "barycentrics", barycentrics, [*face_index.shape, 3])
    _shared_batch(op, "attributes", attributes, face_index.shape[0])
    rasterized = _rasterized(face_index, barycentrics) if attributes.dtype in _REAL else None
    if rasterized is not None:
        return _call("interpolate_raster", attributes, faces, face_index, barycentrics, *rasterized)
    return _call(op, attributes, faces, face_index, barycentrics)


def soft_mask(
    positions: Tensor,
    faces: Tensor,
    face_index: Tensor,
    *,
    face_ranges: Tensor | None = None,
    sigmainv: float = 7000.0,
    boxlen: float = 0.02,
    knum: int = 30,
) -> Tensor:
    """Silhouette that is soft outside of the mesh, so that a mask loss can pull the outline.

    A covered pixel has mask 1. For every other pixel take the first ``knum`` faces, in index order, whose
    two-dimensional bounding box enlarged by ``boxlen`` contains the pixel centre; with d_k the distance from the
    centre to face k, ``mask = 1 - prod_k (1 - exp(-sigmainv d_k^2))``. The mask is discontinuous where a pixel crosses
    the border of an enlarged box.

    Args:
        positions: [B, V, 4] clip-space, or [B, V, 3] taken as w = 1, as in :func:`rasterize`. Differentiable, through
            the nearest edge or vertex of each face, at uncovered pixels.
        faces: [F, 3] int32 or int64.
        face_index: [B, H, W] int32 or int64, of :func:`rasterize`.
        face_ranges: [B, 2] int32 or int64, as in :func:`rasterize`.
        sigmainv: sharpness, above 0, in 1 / NDC^2.
        boxlen: margin of the bounding boxes, at least 0, in NDC.
        knum: how many faces count for one pixel, at least 1.

    Returns:
        [B, H, W] in 0..1.

    Where a gradient is recorded on the CPU, outside of ``torch.compile``, what the forward pass has found is kept for
    the backward pass: at most 8 bytes a pixel, 12 a face and 16 a vertex, more in float64.
    """
    op = "soft_mask"
    positions = _clip_positions(op, positions)
    faces = _faces(op, faces, positions)
    face_index = _face_index(op, face_index, positions)
    if face_index.shape[0] != positions.shape[0]:
        _fail(op, "face_index", f"have the batch size {positions.shape[0]} of positions", face_index)
    ranges = _face_ranges(op, face_ranges, positions)
    if not sigmainv > 0.0:
        _fail(op, "sigmainv", "be above 0", sigmainv)
    if not boxlen >= 0.0:
        _fail(op, "boxlen", "be at least 0", boxlen)
    count = _size(op, "knum", knum)
    arguments = (positions, faces, face_index, ranges, float(sigmainv), float(boxlen), count)
    if positions.requires_grad and torch.is_grad_enabled() and _values_are_readable(positions):
        return _call("soft_mask_keeping", *arguments)[0]
    return _call(op, *arguments)


def texture(
    texture: Tensor,
    uv: Tensor,
    *,
    filter: str = "bilinear",
    wrap: str = "clamp",
    mip_level: Tensor | None = None,
) -> Tensor:
    """Sample a texture at every pixel.

    ``u`` runs along columns and ``v`` along rows, v = 0 being the top row; texel centres lie at ``(i + 0.5) / n``.
    A uv that is not finite samples 0.

    "trilinear" makes a chain of smaller textures, level k with ``max(1, n >> k)`` texels along an axis of n, each the
    mean of the area that it covers on the level before; a sample is bilinear on the two levels around ``mip_level``,
    blended by its fraction (Williams 1983). ``dibr_deploy.shading.mip_level`` says which level a pixel needs.

    Args:
        texture: [B, C, Ht, Wt], or [1, C, Ht, Wt] shared by the batch. Differentiable; with "trilinear" through all
            levels of the chain.
        uv: [B, H, W, 2]. Differentiable with "bilinear" and "trilinear", as the piecewise bilinear surface; its
            gradient is 0 with "nearest".
        filter: "nearest", "bilinear" or "trilinear".
        wrap: what texel indices outside of the texture mean: "clamp", "repeat" or "mirror".
        mip_level: [B, H, W], for "trilinear" alone, which needs it: 0 is the texture itself, and every 1 more halves
            its size. Levels beyond the chain mean its ends; NaN samples 0. Differentiable, as the piecewise linear
            function that it is; its gradient is 0 beyond the ends.

    Returns:
        [B, H, W, C].
    """
    op = "texture"
    _tensor(op, "texture", texture, _REAL_OR_HALF, ("B or 1", "C", "Ht", "Wt"))
    _tensor(op, "uv", uv, _REAL, ("B", "H", "W", 2))
    _like(op, "uv", uv, "texture", texture)
    _half_has_no_gradient(op, "texture", texture)
    _shared_batch(op, "texture", texture, uv.shape[0])
    for name, sized, axis in (("texture", texture, 2), ("texture", texture, 3), ("uv", uv, 1), ("uv", uv, 2)):
        if sized.shape[axis] < 1:
            _fail(op, name, "have at least one row and column", sized)
    filter_code = _choice(op, "filter", filter, FILTER)
    if (mip_level is not None) != (filter == "trilinear"):
        _fail(op, "mip_level", "be given with filter 'trilinear', and with no other", mip_level)
    if mip_level is not None:
        _tensor(op, "mip_level", mip_level, _REAL, ("B", "H", "W"))
        _like(op, "mip_level", mip_level, "texture", texture)
        _same_shape(op, "mip_level", mip_level, uv.shape[:3])
    return _call(op, texture, uv, mip_level, filter_code, _choice(op, "wrap", wrap, WRAP))


def antialias(
    image: Tensor,
    positions: Tensor,
    faces: Tensor,
    face_index: Tensor,
    barycentrics: Tensor,
    *,
    face_ranges: Tensor | None = None,
) -> Tensor:
    """Blend the colours of neighbouring pixels where a silhouette edge passes between their centres.

    The nearer pixel's face covers its neighbour, or leaves part of its own pixel free, by as much as its edge lies
    beyond or before the border between the two; the colours are blended by that share. So a loss on the image reaches
    the vertices of the outline. Edges count that no other face continues across: boundaries and folds. The method is
    that of Laine et al., "Modular Primitives for High-Performance Differentiable Rendering", 2020, section 3.5;
    docs/conventions.md states it completely.

    Args:
        image: [B, H, W, C], the colours at the pixel centres. Differentiable.
        positions: [B, V, 4] clip-space, or [B, V, 3] taken as w = 1, as in :func:`rasterize`. Differentiable, through
            where the edges cross.
        faces: [F, 3] int32 or int64, those that were rasterised. Faces share an edge by vertex indices.
        face_index: [B, H, W] int32 or int64, of :func:`rasterize`.
        barycentrics: [B, H, W, 3] of :func:`rasterize`; they tell which pixel is nearer.
        face_ranges: [B, 2] int32 or int64, as in :func:`rasterize`.

    Returns:
        [B, H, W, C].
    """
    op = "antialias"
    _tensor(op, "image", image, _REAL_OR_HALF, ("B", "H", "W", "C"))
    _half_has_no_gradient(op, "image", image)
    positions = _clip_positions(op, positions)
    _like(op, "positions", positions, "image", image)
    faces = _faces(op, faces, image)
    face_index = _face_index(op, face_index, image)
    _same_shape(op, "face_index", face_index, image.shape[:3])
    _tensor(op, "barycentrics", barycentrics, _REAL, ("B", "H", "W", 3))
    _like(op, "barycentrics", barycentrics, "image", image)
    _same_shape(op, "barycentrics", barycentrics, [*image.shape[:3], 3])
    if positions.shape[0] != image.shape[0]:
        _fail(op, "positions", f"have the batch size {image.shape[0]} of image", positions)
    ranges = _face_ranges(op, face_ranges, positions)
    return _call(op, image, positions, faces, face_index, barycentrics, ranges)


RENDER_OUTPUTS = ("color", "mask", "face_index", "depth", "barycentrics", "uv")
"""What :func:`render` can return, besides the interpolated attributes."""
MOST_ATTRIBUTES = 3
"""How many arrays of attributes :func:`render` interpolates in one pass."""
INTERPOLATED = tuple(f"interpolated_{k}" for k in range(MOST_ATTRIBUTES))
ALL_RENDER_OUTPUTS = (*RENDER_OUTPUTS, *INTERPOLATED)
"""In the order of dibr.h's dibr_render_output, whose bits they are."""


def render(
    positions: Tensor,
    faces: Tensor,
    height: int,
    width: int,
    *,
    outputs: Sequence[str],
    uvs: Tensor | None = None,
    uv_faces: Tensor | None = None,
    texture: Tensor | None = None,
    attributes: Sequence[Tensor] = (),
    attribute_faces: Sequence[Tensor] | None = None,
    face_ranges: Tensor | None = None,
    face_valid: Tensor | None = None,
    perspective_correct: bool = True,
    cull: str = "none",
    depth_clip: bool = True,
    filter: str = "bilinear",
    wrap: str = "clamp",
    sigmainv: float = 7000.0,
    boxlen: float = 0.02,
    knum: int = 30,
) -> dict[str, Tensor]:
    """Rasterize, and interpolate, sample a texture and make the soft mask on the way, in one pass without gradients.

    The results are those of :func:`rasterize`, :func:`interpolate`, :func:`texture` and :func:`soft_mask`, but nothing
    is written between them and nothing that is not asked for. The exporter writes exported graphs with it.

    Args:
        positions, faces, height, width, face_ranges, face_valid, perspective_correct, cull, depth_clip: as in
            :func:`rasterize`.
        outputs: names out of RENDER_OUTPUTS, each once: "color", the texture at the interpolated uvs; "mask", the soft
            mask; "uv", the interpolated uvs; "face_index", "depth" and "barycentrics" of the raster. May be empty where
            there are attributes.
        uvs: [B, Vt, 2], or [1, Vt, 2] shared by the batch, for "color" and "uv".
        uv_faces: [F, 3] int32 or int64 into ``uvs``; by default ``faces``.
        texture: [B, C, Ht, Wt], or [1, C, Ht, Wt] shared by the batch, for "color". May be float16 or bfloat16 beside
            float32.
        attributes: at most MOST_ATTRIBUTES arrays [B or 1, V, D] to be interpolated, of one dtype, which may be
            float16 or bfloat16 beside float32.
        attribute_faces: for each of them its [F, 3]; by default ``faces`` for all.
        filter, wrap: as in :func:`texture`, with "nearest" and "bilinear".
        sigmainv, boxlen, knum: as in :func:`soft_mask`.

    Returns:
        The outputs by their names: color [B, H, W, C], uv [B, H, W, 2], the others as the single functions return
        them; and "interpolated_0", "interpolated_1", ...: [B, H, W, D], the attributes.
    """
    op = "render"
    positions = _clip_positions(op, positions)
    faces = _faces(op, faces, positions)
    ranges = _face_ranges(op, face_ranges, positions)
    valid = _face_valid(op, face_valid, positions, faces)
    names = _render_outputs(op, outputs, len(attributes))
    samples = "color" in names or "uv" in names
    if samples:
        uvs, uv_faces = _render_attributes(op, "uvs", uvs, "uv_faces", uv_faces, faces, positions, _REAL)
        if uvs.shape[2] != 2:
            _fail(op, "uvs", "have shape [B or 1, Vt, 2]", uvs)
    if "color" in names:
        _tensor(op, "texture", texture, _REAL_OR_HALF, ("B or 1", "C", "Ht", "Wt"))
        assert texture is not None
        _like(op, "positions", positions, "texture", texture)
        _shared_batch(op, "texture", texture, positions.shape[0])
        if texture.shape[2] < 1 or texture.shape[3] < 1:
            _fail(op, "texture", "have at least one row and column", texture)
    corners = [faces] * len(attributes) if attribute_faces is None else list(attribute_faces)
    if len(corners) != len(attributes):
        _fail(op, "attribute_faces", f"have as many entries as attributes, {len(attributes)}", len(corners))
    pairs = [
        _render_attributes(op, f"attributes[{k}]", a, f"attribute_faces[{k}]", f, faces, positions, _REAL_OR_HALF)
        for k, (a, f) in enumerate(zip(attributes, corners, strict=True))
    ]
    for k, (values, _) in enumerate(pairs):
        if values.dtype != pairs[0][0].dtype:
            _fail(op, f"attributes[{k}]", f"have the dtype {pairs[0][0].dtype} of attributes[0]", values)
    named = [(f"attributes[{k}]", value) for k, value in enumerate(attributes)]
    for name, value in (("positions", positions), ("uvs", uvs), ("texture", texture), *named):
        if value is not None and value.requires_grad and torch.is_grad_enabled():
            _fail(op, name, "ask for no gradient: render has none, rasterize and what follows it have", value)
    if not sigmainv > 0.0:
        _fail(op, "sigmainv", "be above 0", sigmainv)
    if not boxlen >= 0.0:
        _fail(op, "boxlen", "be at least 0", boxlen)
    results = _call(
        op,
        positions,
        faces,
        ranges,
        valid,
        uvs if samples else None,
        uv_faces if samples else None,
        texture if "color" in names else None,
        [values for values, _ in pairs],
        [corner for _, corner in pairs],
        _size(op, "height", height),
        _size(op, "width", width),
        bool(perspective_correct),
        _choice(op, "cull", cull, CULL),
        bool(depth_clip),
        float(sigmainv),
        float(boxlen),
        _size(op, "knum", knum),
        _choice(op, "filter", filter, {name: FILTER[name] for name in ("nearest", "bilinear")}),
        _choice(op, "wrap", wrap, WRAP),
        sum(1 << bit for bit, name in enumerate(ALL_RENDER_OUTPUTS) if name in names),
    )
    return dict(zip(names, results, strict=True))


# --- Argument checks. They read shapes, dtypes and devices; values only where no trace is being made.


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
    return f"{value!r}" if isinstance(value, (bool, int, float, str)) else type(value).__name__


def _fail(op: str, name: str, expected: str, actual: Any) -> NoReturn:
    raise DibrError(f"{op}: {name} must {expected}, got {_describe(actual)}")


def _tensor(op: str, name: str, value: Any, dtypes: Sequence[torch.dtype], shape: Sequence[str | int]) -> None:
    """Check type, dtype, rank and the fixed sizes; a name in ``shape`` stands for any size."""
    fits = isinstance(value, Tensor) and value.dtype in dtypes and value.dim() == len(shape)
    for axis, wanted in enumerate(shape if fits else ()):
        fits = fits and (type(wanted) is not int or value.size(axis) == wanted)
    if not fits:
        types = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        _fail(op, name, f"be a tensor [{', '.join(map(str, shape))}] of {types}", value)
    if not (value.is_cpu or value.is_cuda or value.is_meta):
        _fail(op, name, "be on the CPU or a CUDA device", value)


def _like(op: str, name: str, value: Tensor, reference_name: str, reference: Tensor) -> None:
    """Check for the dtype, float32 where that is a half, and the device of the reference."""
    dtype = torch.float64 if reference.dtype == torch.float64 else torch.float32
    if value.dtype != dtype or value.device != reference.device:
        wanted = f"{str(dtype).removeprefix('torch.')} on {reference.device}"
        _fail(op, name, f"be {wanted} to go with {reference_name} of {_describe(reference)}", value)


def _half_has_no_gradient(op: str, name: str, value: Tensor) -> None:
    if value.dtype not in _REAL and value.requires_grad and torch.is_grad_enabled():
        _fail(op, name, "be float32 or float64 where its gradient is asked for", value)


def _same_shape(op: str, name: str, value: Tensor, shape: Sequence[int]) -> None:
    if list(value.shape) != list(shape):
        _fail(op, name, f"have shape {list(shape)}", value)


def _shared_batch(op: str, name: str, value: Tensor, batch: int) -> None:
    if value.shape[0] != batch and value.shape[0] != 1:
        _fail(op, name, f"have batch size 1 or {batch}", value)


def _clip_positions(op: str, positions: Tensor) -> Tensor:
    if isinstance(positions, Tensor) and positions.dim() == 3 and positions.shape[2] == 3:
        _tensor(op, "positions", positions, _REAL, ("B", "V", 3))
        return torch.cat([positions, torch.ones_like(positions[..., :1])], dim=-1)
    _tensor(op, "positions", positions, _REAL, ("B", "V", 4))
    return positions


def _faces(op: str, faces: Tensor, reference: Tensor) -> Tensor:
    _tensor(op, "faces", faces, _INTEGER, ("F", 3))
    return _int32(op, "faces", faces, reference)


def _face_index(op: str, face_index: Tensor, reference: Tensor) -> Tensor:
    _tensor(op, "face_index", face_index, _INTEGER, ("B", "H", "W"))
    if face_index.shape[1] < 1 or face_index.shape[2] < 1:
        _fail(op, "face_index", "have at least one row and column", face_index)
    return _int32(op, "face_index", face_index, reference)


def _face_ranges(op: str, face_ranges: Tensor | None, positions: Tensor) -> Tensor | None:
    if face_ranges is None:
        return None
    _tensor(op, "face_ranges", face_ranges, _INTEGER, ("B", 2))
    _same_shape(op, "face_ranges", face_ranges, [positions.shape[0], 2])
    return _int32(op, "face_ranges", face_ranges, positions)


def _face_valid(op: str, face_valid: Tensor | None, positions: Tensor, faces: Tensor) -> Tensor | None:
    if face_valid is None:
        return None
    _tensor(op, "face_valid", face_valid, (torch.bool,), ("B", "F"))
    _same_shape(op, "face_valid", face_valid, [positions.shape[0], faces.shape[0]])
    return _int32(op, "face_valid", face_valid, positions)


def _int32(op: str, name: str, integers: Tensor, reference: Tensor) -> Tensor:
    """The tensor as int32. In a trace, where values cannot be asked for, what does not fit is brought to values that
    the kernels refuse as out of range; wrapping around would not."""
    if integers.device != reference.device:
        _fail(op, name, f"be on {reference.device} as the other arguments are", integers)
    if integers.dtype == torch.int64:
        if not _values_are_readable(integers):
            return integers.clamp(-2, _INT32.max).to(torch.int32)
        lowest, highest = (int(value) for value in integers.aminmax()) if integers.numel() > 0 else (0, 0)
        if lowest < _INT32.min or highest > _INT32.max:
            _fail(op, name, f"fit into int32, but has values from {lowest} to {highest}", integers)
    return integers if integers.dtype == torch.int32 else integers.to(torch.int32)


def _values_are_readable(tensor: Tensor) -> bool:
    """Whether reading values neither breaks a trace nor waits for a device."""
    return tensor.is_cpu and not _is_traced([tensor])


def _render_outputs(op: str, outputs: Sequence[str], attributes: int) -> list[str]:
    """The names of what is returned, in the order of ALL_RENDER_OUTPUTS."""
    if attributes > MOST_ATTRIBUTES:
        _fail(op, "attributes", f"be at most {MOST_ATTRIBUTES} tensors", attributes)
    for name in outputs:
        if name not in RENDER_OUTPUTS:
            _fail(op, "outputs", f"be names out of {', '.join(RENDER_OUTPUTS)}", name)
    names = [name for name in RENDER_OUTPUTS if name in outputs] + list(INTERPOLATED[:attributes])
    if not names:
        _fail(op, "outputs", "name at least one output where there are no attributes", "none")
    return names


def _render_attributes(
    op: str,
    name: str,
    values: Tensor | None,
    faces_name: str,
    corners: Tensor | None,
    faces: Tensor,
    positions: Tensor,
    dtypes: Sequence[torch.dtype],
) -> tuple[Tensor, Tensor]:
    """An array to interpolate, and its faces, which default to those that are rasterised."""
    _tensor(op, name, values, dtypes, ("B or 1", "V", "D"))
    assert values is not None
    _like(op, "positions", positions, name, values)
    _shared_batch(op, name, values, positions.shape[0])
    if corners is None:
        return values, faces
    _tensor(op, faces_name, corners, _INTEGER, ("F", 3))
    _same_shape(op, faces_name, corners, faces.shape)
    return values, _int32(op, faces_name, corners, positions)


def _size(op: str, name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)) or value < 1:
        _fail(op, name, "be an integer of at least 1", value)
    return value


def _choice(op: str, name: str, value: str, choices: dict[str, int]) -> int:
    if value not in choices:
        _fail(op, name, f"be one of {', '.join(repr(choice) for choice in choices)}", value)
    return choices[value]


# --- Shapes for tracing, and gradients.


@torch.library.register_fake("dibr::rasterize")
def _(positions, faces, face_ranges, face_valid, height, width, perspective_correct, cull, depth_clip):
    image = (positions.shape[0], height, width)
    face_index = positions.new_empty(image, dtype=torch.int32)
    return face_index, positions.new_empty((*image, 3)), positions.new_empty(image)


@torch.library.register_fake("dibr::rasterize_backward")
def _(positions, faces, face_index, barycentrics, grad_barycentrics, grad_depth, perspective_correct, *_):
    return positions.new_empty(positions.shape)


@torch.library.register_fake("dibr::interpolate")
def _(attributes, faces, face_index, barycentrics):
    return attributes.new_empty((*face_index.shape, attributes.shape[2]))


@torch.library.register_fake("dibr::interpolate_backward")
def _(attributes, faces, face_index, barycentrics, grad_output, needs_attributes=True, needs_barycentrics=True, *_):
    grad_attributes = attributes.new_empty(attributes.shape if needs_attributes else (0,))
    return grad_attributes, barycentrics.new_empty(barycentrics.shape if needs_barycentrics else (0,))


@torch.library.register_fake("dibr::interpolate_raster")
def _(attributes, faces, face_index, *_):
    return attributes.new_empty((*face_index.shape, attributes.shape[2]))


@torch.library.register_fake("dibr::interpolate_raster_backward")
def _(
    attributes, faces, face_index, barycentrics, positions, raster_faces, grad_output, perspective_correct,
    needs_attributes=True, *_,
):  # fmt: skip
    grad_attributes = attributes.new_empty(attributes.shape if needs_attributes else (0,))
    return grad_attributes, positions.new_empty(positions.shape)


@torch.library.register_fake("dibr::soft_mask")
def _(positions, faces, face_index, face_ranges, sigmainv, boxlen, knum):
    return positions.new_empty(face_index.shape)


@torch.library.register_fake("dibr::soft_mask_keeping")
def _(positions, faces, face_index, *_):
    kept = torch.library.get_ctx().new_dynamic_size()  # an affair of the kernels
    return positions.new_empty(face_index.shape), positions.new_empty((kept,), dtype=torch.uint8)


@torch.library.register_fake("dibr::soft_mask_backward")
def _(positions, *_):
    return positions.new_empty(positions.shape)


@torch.library.register_fake("dibr::texture")
def _(texture, uv, mip_level, filter, wrap):
    return texture.new_empty((*uv.shape[:3], texture.shape[1]))


@torch.library.register_fake("dibr::texture_backward")
def _(texture, uv, mip_level, grad_output, filter, wrap, deterministic=False):
    grad_mip_level = texture.new_empty((0,)) if mip_level is None else mip_level.new_empty(mip_level.shape)
    return texture.new_empty(texture.shape), uv.new_empty(uv.shape), grad_mip_level


@torch.library.register_fake("dibr::antialias")
def _(image, positions, faces, face_index, barycentrics, face_ranges):
    return image.new_empty(image.shape)


@torch.library.register_fake("dibr::antialias_backward")
def _(image, positions, faces, face_index, barycentrics, face_ranges, grad_output, deterministic=False):
    return image.new_empty(image.shape), positions.new_empty(positions.shape)


@torch.library.register_fake("dibr::render")
def _(
    positions, faces, face_ranges, face_valid, uvs, uv_faces, texture, attributes, attribute_faces, height, width,
    perspective_correct, cull, depth_clip, sigmainv, boxlen, knum, filter, wrap, outputs,
):  # fmt: skip
    image = (positions.shape[0], height, width)

    def make(name):
        if name == "color":
            return texture.new_empty((*image, texture.shape[1]))
        if name == "face_index":
            return positions.new_empty(image, dtype=torch.int32)
        if name in INTERPOLATED:
            values = attributes[INTERPOLATED.index(name)]
            return values.new_empty((*image, values.shape[2]))
        channels = {"mask": (), "depth": (), "barycentrics": (3,), "uv": (2,)}[name]
        return positions.new_empty((*image, *channels))

    return [make(name) for bit, name in enumerate(ALL_RENDER_OUTPUTS) if outputs >> bit & 1]


def _deterministic() -> bool:
    """Whether CUDA kernels must avoid float atomics; the CPU's never need to."""
    return torch.are_deterministic_algorithms_enabled()


def _rasterize_context(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], inputs[1], output[0], output[1])
    ctx.perspective_correct = inputs[6]
    ctx.makes_raster = True


def _rasterize_gradient(ctx, _, grad_barycentrics, grad_depth):
    grad_positions = None
    if ctx.needs_input_grad[0] and not (grad_barycentrics is None and grad_depth is None):
        grad_positions = torch.ops.dibr.rasterize_backward(
            *ctx.saved_tensors, grad_barycentrics, grad_depth, ctx.perspective_correct, _deterministic()
        )
    return grad_positions, None, None, None, None, None, None, None, None


def _rasterized(face_index: Tensor, barycentrics: Tensor) -> tuple[Tensor, Tensor, bool] | None:
    """Positions, faces and perspective_correct of the call of rasterize whose outputs these two are, where gradients
    shall reach it."""
    if not torch.is_grad_enabled() or _is_traced([barycentrics]):
        return None
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        return None  # of a checkpoint, which would compute all again for a look at what is saved
    node: Any = barycentrics.grad_fn
    if not getattr(node, "makes_raster", False):
        return None
    try:
        positions, faces, its_face_index, _ = node.saved_tensors
    except RuntimeError:  # a backward pass has freed them
        return None
    same = its_face_index.data_ptr() == face_index.data_ptr() and its_face_index.shape == face_index.shape
    return (positions, faces, node.perspective_correct) if same else None


def _interpolate_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _interpolate_gradient(ctx, grad_output):
    needs_attributes, _, _, needs_barycentrics = ctx.needs_input_grad
    grad_attributes, grad_barycentrics = torch.ops.dibr.interpolate_backward(
        *ctx.saved_tensors, grad_output, needs_attributes, needs_barycentrics, _deterministic()
    )
    return grad_attributes if needs_attributes else None, None, None, grad_barycentrics if needs_barycentrics else None


def _interpolate_raster_context(ctx, inputs, output) -> None:
    *tensors, ctx.perspective_correct = inputs
    ctx.save_for_backward(*tensors)


def _interpolate_raster_gradient(ctx, grad_output):
    *interpolated, positions, raster_faces = ctx.saved_tensors
    barycentrics = interpolated[3]
    needs_attributes = ctx.needs_input_grad[0]
    grad_barycentrics = grad_positions = None
    if barycentrics.retains_grad or barycentrics._backward_hooks:  # somebody wants to see theirs
        grad_attributes, grad_barycentrics = torch.ops.dibr.interpolate_backward(
            *interpolated, grad_output, needs_attributes, True, _deterministic()
        )
    else:
        grad_attributes, grad_positions = torch.ops.dibr.interpolate_raster_backward(
            *(*interpolated, positions, raster_faces, grad_output),
            *(ctx.perspective_correct, needs_attributes, _deterministic()),
        )
    if not needs_attributes:
        grad_attributes = None
    return grad_attributes, None, None, grad_barycentrics, grad_positions, None, None


def _soft_mask_context(ctx, inputs, output) -> None:
    positions, faces, face_index, face_ranges, *ctx.settings = inputs
    ctx.save_for_backward(positions, faces, face_index, face_ranges)


def _soft_mask_gradient(ctx, grad_mask):
    grad_positions = torch.ops.dibr.soft_mask_backward(*ctx.saved_tensors, grad_mask, *ctx.settings, _deterministic())
    return grad_positions, None, None, None, None, None, None


def _soft_mask_keeping_context(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)  # none of the bytes
    positions, faces, face_index, face_ranges, *ctx.settings = inputs
    ctx.save_for_backward(positions, faces, face_index, face_ranges, output[1])


def _soft_mask_keeping_gradient(ctx, grad_mask, _):
    grad_positions = None
    if grad_mask is not None:
        *inputs, kept = ctx.saved_tensors
        grad_positions = torch.ops.dibr.soft_mask_backward(*inputs, grad_mask, *ctx.settings, _deterministic(), kept)
    return grad_positions, None, None, None, None, None, None


def _texture_context(ctx, inputs, output) -> None:
    texture, uv, mip_level, *ctx.settings = inputs
    ctx.save_for_backward(texture, uv, mip_level)


def _texture_gradient(ctx, grad_output):
    texture, uv, mip_level = ctx.saved_tensors
    grad_texture, grad_uv, grad_mip_level = torch.ops.dibr.texture_backward(
        texture, uv, mip_level, grad_output, *ctx.settings, _deterministic()
    )
    return grad_texture, grad_uv, None if mip_level is None else grad_mip_level, None, None


def _antialias_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _antialias_gradient(ctx, grad_output):
    grad_image, grad_positions = torch.ops.dibr.antialias_backward(*ctx.saved_tensors, grad_output, _deterministic())
    return grad_image, grad_positions, None, None, None, None


_recorders: dict[str, Callable[..., Any]] = {}
"""By the names of the operators that have a gradient."""


def _call(op: str, *arguments: Any) -> Any:
    """One operator. Ordinary tensors outside of a trace go past what torch.library does in Python for every call, with
    a gradient or without: it takes as long as the kernels of a small image."""
    overload = getattr(torch.ops.dibr, op).default
    tensors: list[Tensor] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            tensors.append(argument)
        elif type(argument) is list:
            tensors += argument
    if _is_traced(tensors):
        return overload(*arguments)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _recorders[op](*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return overload(*arguments)


def _is_traced(tensors: list[Tensor]) -> bool:
    """Whether somebody may want to see operators, or the tensors are none of torch's own, or were left over from a
    transform that has ended."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or not _PLAIN.issuperset(map(type, tensors))
        or any(map(operator.is_not, tensors, map(unwrap_if_dead, tensors)))
    )


def _recorder(op: str, setup_context, gradient) -> Callable[..., Any]:
    """The operator as torch.library records it."""
    overload = getattr(torch.ops.dibr, op).default

    # Not apart from setup_context, which torch would inspect forward's signature for in each call.
    def forward(ctx, *arguments):
        with torch._C._AutoDispatchBelowAutograd():
            output = overload(*arguments)
        setup_context(ctx, arguments, output)
        return output

    def backward(ctx, *gradients):
        # With create_graph it is the second derivative that is refused.
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return gradient(ctx, *gradients)
        with torch._C._AutoDispatchBelowAutograd():
            return gradient(ctx, *gradients)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"dibr_{op}", (torch.autograd.Function,), methods)
    # Function.apply itself first looks for transforms and what was left over from them, as _is_traced has.
    return super(torch.autograd.Function, function).apply


def _register_gradient(op: str, setup_context, gradient) -> None:
    torch.library.register_autograd(f"dibr::{op}", gradient, setup_context=setup_context)
    _recorders[op] = _recorder(op, setup_context, gradient)


def _refuse_second_derivative(op: str) -> None:
    def refuse(ctx, *gradients):
        raise RuntimeError(f"dibr::{op} has no second derivative: its gradient cannot be differentiated again")

    torch.library.register_autograd(f"dibr::{op}_backward", refuse)


_register_gradient("rasterize", _rasterize_context, _rasterize_gradient)
_register_gradient("interpolate", _interpolate_context, _interpolate_gradient)
_register_gradient("interpolate_raster", _interpolate_raster_context, _interpolate_raster_gradient)
_register_gradient("soft_mask", _soft_mask_context, _soft_mask_gradient)
_register_gradient("soft_mask_keeping", _soft_mask_keeping_context, _soft_mask_keeping_gradient)
_register_gradient("texture", _texture_context, _texture_gradient)
_register_gradient("antialias", _antialias_context, _antialias_gradient)
for _op in _recorders.keys() - {"soft_mask_keeping"}:  # whose gradient is that of soft_mask
    _refuse_second_derivative(_op)


def _no_gradient(ctx, *gradients):
    raise RuntimeError("dibr::render has no gradient: use rasterize and what follows it")


torch.library.register_autograd("dibr::render", _no_gradient)
