"""The ops of domain ai.dibr as ONNX knows them: arguments, attributes, and type and shape inference.

``register()`` makes them known to the ``onnx`` package, so that ``onnx.checker`` and ``onnx.shape_inference`` treat our
nodes like standard ones. The exporter needs them too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import helper
from onnx.defs import OpSchema
from onnx.shape_inference import InferenceContext, InferenceError

from dibr_deploy.runtime.schema import OP_DOMAIN

OP_SCHEMA_VERSION = 1
SHAPE_INPUTS_ATTRIBUTE = "tensorrt_plugin_shape_input_indices"
IMAGE_SIZE_INPUT = 4
"""Index of Rasterize's input image_size."""
RENDER_INPUTS = (
    "positions", "faces", "uvs", "uv_faces", "texture", "attributes_0", "attribute_faces_0", "attributes_1",
    "attribute_faces_1", "attributes_2", "attribute_faces_2", "face_ranges", "face_valid", "image_size",
)  # fmt: skip
RENDER_OUTPUTS = (
    "color", "mask", "face_index", "depth", "barycentrics", "uv", "interpolated_0", "interpolated_1", "interpolated_2",
)  # fmt: skip
"""Names of Render's inputs and outputs by their index."""
STAND_IN_SHAPES: dict[str, tuple[int, ...]] = {"uvs": (1, 1, 2), "texture": (1, 1, 1, 1)}
STAND_IN_SHAPES |= {f"attributes_{k}": (1, 1, 1) for k in range(3)}
"""Of zeros that stand for an input which no output needs where a later one is there; for faces of theirs stand the
rasterised ones. TensorRT's parser passes a null pointer for an input that is left out."""

_REAL = ["tensor(float)", "tensor(double)"]
_STORED = [*_REAL, "tensor(float16)", "tensor(bfloat16)"]
_INT32 = "tensor(int32)"
_INT64 = "tensor(int64)"

_Dim = onnx.TensorShapeProto.Dimension


def register() -> None:
    """Register the ops with the ``onnx`` package of this process; does nothing the second time."""
    for schema in _SCHEMAS:
        if not onnx.defs.has(schema.name, domain=OP_DOMAIN):
            onnx.defs.register_schema(schema)


def _known(size: int) -> _Dim:
    return _Dim(dim_value=size)


class _Node:
    """One node under inference: dimensions of its inputs, checked against the ranks that the op declares."""

    def __init__(self, op: str, context: InferenceContext) -> None:
        self.op = op
        self.context = context

    def input(self, index: int, name: str, shape: list[str | int]) -> list[_Dim]:
        """Dimensions of an input; unknown ones where the graph does not tell.

        shape: a letter or a number per dimension. Raises InferenceError where rank or a number differs.
        """
        tensor = self.context.get_input_type(index).tensor_type
        if not tensor.HasField("shape"):
            return [_Dim() for _ in shape]
        dims = list(tensor.shape.dim)
        sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
        fits = len(dims) == len(shape) and all(
            not isinstance(expected, int) or not isinstance(size, int) or size == expected
            for expected, size in zip(shape, sizes, strict=True)
        )
        if not fits:
            raise InferenceError(f"{self.op}: {name} must have shape {_bracketed(shape)}, got {_bracketed(sizes)}")
        return dims

    def element_type(self, index: int) -> int:
        return self.context.get_input_type(index).tensor_type.elem_type

    def text(self, attribute: str) -> str:
        """Value of a text attribute, empty where it is absent."""
        proto = self.context.get_attribute(attribute)
        return proto.s.decode() if proto is not None else ""

    def integer(self, attribute: str) -> int:
        """Value of an integer attribute, 0 where it is absent."""
        proto = self.context.get_attribute(attribute)
        return proto.i if proto is not None else 0

    def set_output(self, index: int, element_type: int, dims: list[_Dim]) -> None:
        if index >= self.context.get_num_outputs() or not self.context.has_output(index):
            return
        output = onnx.TypeProto()
        output.tensor_type.elem_type = element_type
        output.tensor_type.shape.dim.extend(dims)
        self.context.set_output_type(index, output)


def _bracketed(shape: list[str | int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _image_size(node: _Node, index: int = IMAGE_SIZE_INPUT) -> list[_Dim]:
    """Height and width of the outputs, from the input image_size where it is given, else the attributes."""
    context = node.context
    if context.get_num_inputs() <= index or not context.has_input(index):
        sizes = [node.integer("height"), node.integer("width")]
        return [_known(size) if size > 0 else _Dim() for size in sizes]
    node.input(index, "image_size", [2])
    constant = context.get_input_data(index)
    if constant is not None:
        return [_known(int(size)) for size in onnx.numpy_helper.to_array(constant)]
    symbolic = context.get_symbolic_input(index)
    return list(symbolic.dim) if symbolic is not None else [_Dim(), _Dim()]


def _infer_rasterize(context: InferenceContext) -> None:
    node = _Node("Rasterize", context)
    batch = node.input(0, "positions", ["B", "V", 4])[0]
    node.input(1, "faces", ["F", 3])
    pixels = [batch, *_image_size(node)]
    real = node.element_type(0)
    node.set_output(0, onnx.TensorProto.INT32, pixels)
    node.set_output(1, real, [*pixels, _known(3)])
    node.set_output(2, real, pixels)


def _infer_interpolate(context: InferenceContext) -> None:
    node = _Node("Interpolate", context)
    channels = node.input(0, "attributes", ["1 or B", "V", "D"])[2]
    node.input(1, "faces", ["F", 3])
    pixels = node.input(2, "face_index", ["B", "H", "W"])
    node.input(3, "barycentrics", ["B", "H", "W", 3])
    node.set_output(0, node.element_type(0), [*pixels, channels])


def _infer_soft_mask(context: InferenceContext) -> None:
    node = _Node("SoftMask", context)
    node.input(0, "positions", ["B", "V", 4])
    node.input(1, "faces", ["F", 3])
    pixels = node.input(2, "face_index", ["B", "H", "W"])
    node.set_output(0, node.element_type(0), pixels)


def _infer_texture(context: InferenceContext) -> None:
    node = _Node("Texture", context)
    channels = node.input(0, "texture", ["1 or B", "C", "Ht", "Wt"])[1]
    pixels = node.input(1, "uv", ["B", "H", "W", 2])[:3]
    if context.get_num_inputs() > 2 and context.has_input(2):
        node.input(2, "mip_level", ["B", "H", "W"])
    node.set_output(0, node.element_type(0), [*pixels, channels])


def _infer_antialias(context: InferenceContext) -> None:
    node = _Node("Antialias", context)
    image = node.input(0, "image", ["B", "H", "W", "C"])
    node.input(1, "positions", ["B", "V", 4])
    node.input(2, "faces", ["F", 3])
    node.input(3, "face_index", ["B", "H", "W"])
    node.input(4, "barycentrics", ["B", "H", "W", 3])
    node.set_output(0, node.element_type(0), image)


def _infer_render(context: InferenceContext) -> None:
    node = _Node("Render", context)
    batch = node.input(0, "positions", ["B", "V", 4])[0]
    node.input(1, "faces", ["F", 3])
    pixels = [batch, *_image_size(node, RENDER_INPUTS.index("image_size"))]
    written = (node.text("outputs") or "face_index").split(",")
    if len(set(written)) < len(written) or not set(written) <= set(RENDER_OUTPUTS):
        raise InferenceError(f"Render: attribute outputs must list outputs, each once, got {node.text('outputs')!r}")
    real = node.element_type(0)
    for index, name in enumerate(RENDER_OUTPUTS):
        if name not in written:
            continue
        source = {"color": "texture", "uv": "uvs"}.get(name, name.replace("interpolated", "attributes"))
        if name in ("color", "uv") or source != name:
            position = RENDER_INPUTS.index(source)
            if position >= context.get_num_inputs() or not context.has_input(position):
                raise InferenceError(f"Render: {source} must be given for the output {name}")
        if name == "color":
            channels = node.input(position, source, ["1 or B", "C", "Ht", "Wt"])[1]
            node.set_output(index, node.element_type(position), [*pixels, channels])
        elif source != name:
            channels = node.input(position, source, ["1 or B", "V", "D"])[2]
            node.set_output(index, node.element_type(position), [*pixels, channels])
        elif name == "face_index":
            node.set_output(index, onnx.TensorProto.INT32, pixels)
        else:
            node.set_output(index, real, [*pixels, _known(3)] if name == "barycentrics" else pixels)


def _tensor(name: str, type_name: str, description: str, *, optional: bool = False) -> OpSchema.FormalParameter:
    option = OpSchema.FormalParameterOption.Optional if optional else OpSchema.FormalParameterOption.Single
    return OpSchema.FormalParameter(name, type_name, description, param_option=option)


def _attribute(name: str, default: Any, description: str) -> OpSchema.Attribute:
    return OpSchema.Attribute(name, helper.make_attribute(name, default), description)


# What TensorRT selects a plugin by; every op declares them so that one graph serves ONNX Runtime and TensorRT.
_PLUGIN_ATTRIBUTES = [
    _attribute("plugin_version", str(OP_SCHEMA_VERSION), "TensorRT: version of the plugin = version of the op schema"),
    _attribute("plugin_namespace", OP_DOMAIN, "TensorRT: namespace of the plugin"),
]

_TYPES = [
    ("T", _REAL, "float32 or float64"),
    ("S", _STORED, "what attributes, textures and images are stored in: T, or a 16-bit float where T is float32"),
    ("X", _STORED, "what a texture beside attributes is stored in: as S"),
]

_FACES = _tensor("faces", _INT32, "[F, 3] vertex indices, counter-clockwise = front")
_POSITIONS = _tensor("positions", "T", "[B, V, 4] clip space (x, y, z, w)")
_FACE_INDEX = _tensor("face_index", _INT32, "[B, H, W] index into faces, -1 on background")
_FACE_RANGES = _tensor("face_ranges", _INT32, "[B, 2] (start, count) into faces; default: all faces", optional=True)


def _schema(
    name: str,
    doc: str,
    inputs: list[OpSchema.FormalParameter],
    outputs: list[OpSchema.FormalParameter],
    attributes: list[OpSchema.Attribute],
    infer: Callable[[InferenceContext], None],
) -> OpSchema:
    schema = OpSchema(
        name,
        OP_DOMAIN,
        OP_SCHEMA_VERSION,
        doc,
        inputs=inputs,
        outputs=outputs,
        type_constraints=[
            (name, types, text) for name, types, text in _TYPES if any(p.type_str == name for p in (*inputs, *outputs))
        ],
        attributes=[*attributes, *_PLUGIN_ATTRIBUTES],
    )
    schema.set_type_and_shape_inference_function(infer)
    return schema


_RASTER_ATTRIBUTES = [
    _attribute("height", 0, "H in pixels, where image_size is absent"),
    _attribute("width", 0, "W in pixels, where image_size is absent"),
    _attribute("perspective_correct", 1, "1: perspective-correct barycentrics, 0: screen-space"),
    _attribute("cull", "none", '"none", or "back": clockwise faces are absent'),
    _attribute("depth_clip", 1, "1: clip to -w <= z <= w, 0: keep every finite z where w > 0"),
    OpSchema.Attribute(
        SHAPE_INPUTS_ATTRIBUTE, OpSchema.AttrType.INTS, "TensorRT: inputs that are read as shapes", required=False
    ),
]
_MASK_ATTRIBUTES = [
    _attribute("sigmainv", 7000.0, "sharpness of the fall-off, 1 / NDC^2"),
    _attribute("boxlen", 0.02, "by how much a face's bounding box is enlarged, NDC"),
    _attribute("knum", 30, "how many faces at most take part at a pixel"),
]
_FACE_VALID = _tensor("face_valid", _INT32, "[B, F], 0 = the face is absent; default: all present", optional=True)
_IMAGE_SIZE = _tensor("image_size", _INT64, "(H, W), instead of the attributes; in host memory", optional=True)

_SCHEMAS = [
    _schema(
        "Rasterize",
        "Which face is visible at each pixel centre, and where in it.",
        [
            _POSITIONS,
            _FACES,
            _FACE_RANGES,
            _FACE_VALID,
            _IMAGE_SIZE,
        ],
        [
            _FACE_INDEX,
            _tensor("barycentrics", "T", "[B, H, W, 3], 0 on background"),
            _tensor("depth", "T", "[B, H, W] NDC z/w, 1 on background", optional=True),
        ],
        _RASTER_ATTRIBUTES,
        _infer_rasterize,
    ),
    _schema(
        "Interpolate",
        "Vertex attributes at each pixel, weighted by its barycentrics; 0 on background.",
        [
            _tensor("attributes", "S", "[B or 1, V, D]"),
            _FACES,
            _FACE_INDEX,
            _tensor("barycentrics", "T", "[B, H, W, 3]"),
        ],
        [_tensor("output", "S", "[B, H, W, D]")],
        [],
        _infer_interpolate,
    ),
    _schema(
        "SoftMask",
        "1 on covered pixels, elsewhere the probability that falls off with the distance to the nearby faces.",
        [_POSITIONS, _FACES, _FACE_INDEX, _FACE_RANGES],
        [_tensor("mask", "T", "[B, H, W] in 0..1")],
        _MASK_ATTRIBUTES,
        _infer_soft_mask,
    ),
    _schema(
        "Texture",
        "A texture sampled at each pixel; v = 0 is the top row, texel centres at (i + 0.5) / n.",
        [
            _tensor("texture", "S", "[B or 1, C, Ht, Wt]"),
            _tensor("uv", "T", "[B, H, W, 2]"),
            _tensor("mip_level", "T", "[B, H, W], which level of the mip chain; for trilinear alone", optional=True),
        ],
        [_tensor("output", "S", "[B, H, W, C]")],
        [
            _attribute("filter", "bilinear", '"bilinear", "nearest", or "trilinear": bilinear on two mip levels'),
            _attribute("wrap", "clamp", '"clamp", "repeat" or "mirror", applied to texel indices'),
        ],
        _infer_texture,
    ),
    _schema(
        "Antialias",
        "Colours of neighbouring pixels, blended where a silhouette edge passes between their centres.",
        [
            _tensor("image", "S", "[B, H, W, C]"),
            _POSITIONS,
            _FACES,
            _FACE_INDEX,
            _tensor("barycentrics", "T", "[B, H, W, 3]"),
            _FACE_RANGES,
        ],
        [_tensor("output", "S", "[B, H, W, C]")],
        [],
        _infer_antialias,
    ),
    _schema(
        "Render",
        "Rasterize, and Interpolate, Texture and SoftMask of its raster, in one pass; the attribute outputs says which "
        "outputs are written. An input that none of them needs stands in its place where a later one is there.",
        [
            _POSITIONS,
            _FACES,
            _tensor("uvs", "T", "[B or 1, Vt, 2], for color and uv", optional=True),
            _tensor("uv_faces", _INT32, "[F, 3] indices into uvs", optional=True),
            _tensor("texture", "X", "[B or 1, C, Ht, Wt], for color", optional=True),
            *(
                parameter
                for k in range(3)
                for parameter in (
                    _tensor(f"attributes_{k}", "S", f"[B or 1, V, D], for interpolated_{k}", optional=True),
                    _tensor(f"attribute_faces_{k}", _INT32, f"[F, 3] indices into attributes_{k}", optional=True),
                )
            ),
            _FACE_RANGES,
            _FACE_VALID,
            _IMAGE_SIZE,
        ],
        [
            _tensor("color", "X", "[B, H, W, C] the texture sampled at uv", optional=True),
            _tensor("mask", "T", "[B, H, W] as of SoftMask", optional=True),
            _tensor("face_index", _INT32, "[B, H, W], -1 on background", optional=True),
            _tensor("depth", "T", "[B, H, W] NDC z/w, 1 on background", optional=True),
            _tensor("barycentrics", "T", "[B, H, W, 3], 0 on background", optional=True),
            _tensor("uv", "T", "[B, H, W, 2], uvs interpolated, 0 on background", optional=True),
            *(_tensor(f"interpolated_{k}", "S", f"[B, H, W, D], of attributes_{k}", optional=True) for k in range(3)),
        ],
        [
            _attribute("outputs", "face_index", "names of the outputs that are written, with commas"),
            *_RASTER_ATTRIBUTES,
            *_MASK_ATTRIBUTES,
            _attribute("filter", "bilinear", 'of the texture: "bilinear" or "nearest"'),
            _attribute("wrap", "clamp", 'of the texture: "clamp", "repeat" or "mirror", applied to texel indices'),
        ],
        _infer_render,
    ),
]
