"""Rasterize and what reads its raster, as one Render node that writes what is asked for and nothing else.

An exported graph has Rasterize, then Interpolate, Texture and SoftMask nodes that read its face_index and barycentrics.
Together they write some twenty numbers for each pixel and read most of them again. Render computes the same, bit for
bit on one device, a tile at a time, and writes only what the rest of the graph or its user reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx_ir as ir

from dibr_deploy.runtime.schema import OP_DOMAIN

from .schemas import RENDER_INPUTS, RENDER_OUTPUTS, SHAPE_INPUTS_ATTRIBUTE, STAND_IN_SHAPES

_FACE_INDEX, _BARYCENTRICS, _DEPTH = range(3)
_RASTER_ATTRIBUTES = ("height", "width", "perspective_correct", "cull", "depth_clip")
_MASK_ATTRIBUTES = ("sigmainv", "boxlen", "knum")
_TEXTURE_ATTRIBUTES = ("filter", "wrap")
_FILTERS = ("nearest", "bilinear")
_PLUGIN_ATTRIBUTES = ("plugin_version", "plugin_namespace")
_MOST_ATTRIBUTES = 3
_REAL = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a Render node in place of each Rasterize that something can be fused with.

    What is fused with it: the Interpolates of its raster, at most three and the one whose uvs are sampled; the first
    Texture, of filter "nearest" or "bilinear", that samples such uvs; and the SoftMask of the same mesh. What does not
    fit stays a node of its own and reads what Render then writes for it: a second Texture of the same uvs, another
    SoftMask, an Antialias, attributes or a texture that are themselves made of the raster.

    Args:
        model: a model of ``to_onnx``, with types and shapes inferred. It is left as it is.

    Returns:
        The model with the same inputs and outputs; types and shapes of Render's outputs are known.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    for node in list(graph):
        if node.domain == OP_DOMAIN and node.op_type == "Rasterize":
            fusion = _Fusion(node)
            if fusion.fused:
                fusion.apply(graph)
    graph.sort()
    return ir.to_proto(graph_model)


class _Fusion:
    """What can become one node with a Rasterize."""

    def __init__(self, raster: ir.Node) -> None:
        self._raster = raster
        self._behind = set(_behind(raster))
        self._mask = self._find_mask()
        self._texture: ir.Node | None = None
        self._uv: ir.Node | None = None
        interpolates = self._find_interpolates()
        for node in interpolates:
            sampled = self._texture_of(node)
            if sampled is not None:
                self._uv, self._texture = node, sampled
                break
        others = [node for node in interpolates if node is not self._uv]
        kinds = [_input(node, 0).dtype for node in others]
        kind = max(kinds, key=kinds.count, default=None)
        self._attributes = [node for node in others if _input(node, 0).dtype == kind][:_MOST_ATTRIBUTES]

    @property
    def fused(self) -> list[ir.Node]:
        """The nodes that Rasterize takes in."""
        found = [self._mask, self._uv, self._texture, *self._attributes]
        return [node for node in found if node is not None]

    def _readers(self, op_type: str) -> Iterator[ir.Node]:
        """Nodes of ours that read the raster and, all else they read, from elsewhere."""
        raster = self._raster
        seen = set()
        for node, _ in raster.outputs[_FACE_INDEX].uses():
            ours = node.domain == OP_DOMAIN and node.op_type == op_type and node.graph is raster.graph
            if ours and node not in seen and self._is_independent(set(node.inputs) - set(raster.outputs)):
                seen.add(node)
                yield node

    def _is_independent(self, values: Iterable[ir.Value | None]) -> bool:
        return all(value is None or value.producer() not in self._behind for value in values)

    def _find_mask(self) -> ir.Node | None:
        positions, faces, face_ranges = _input(self._raster, 0), _input(self._raster, 1), _inputs(self._raster, 3)[2]
        for node in _in_order(self._readers("SoftMask")):
            own_positions, own_faces, face_index, own_ranges = _inputs(node, 4)
            same_mesh = own_positions is positions and own_faces is faces
            same_faces = own_ranges is face_ranges or (own_ranges is None and _is_all_faces(face_ranges, faces))
            if same_mesh and same_faces and face_index is self._raster.outputs[_FACE_INDEX]:
                return node
        return None

    def _find_interpolates(self) -> list[ir.Node]:
        wanted = self._raster.outputs[_FACE_INDEX], self._raster.outputs[_BARYCENTRICS]
        nodes = (node for node in self._readers("Interpolate") if tuple(node.inputs[2:4]) == wanted)
        return [node for node in _in_order(nodes) if node.outputs[0].uses() or node.outputs[0].is_graph_output()]

    def _texture_of(self, interpolate: ir.Node) -> ir.Node | None:
        uv = interpolate.outputs[0]
        readers = (node for node, index in uv.uses() if index == 1 and node.graph is self._raster.graph)
        for node in _in_order(readers):
            texture, _, *others = node.inputs
            if (
                (node.domain, node.op_type) == (OP_DOMAIN, "Texture")
                and _text(node, "filter", "bilinear") in _FILTERS
                and not any(others)
                and _input(interpolate, 0).dtype in _REAL
                and self._is_independent([texture])
            ):
                return node
        return None

    def apply(self, graph: ir.Graph) -> None:
        """Put the Render node into the graph, and take out what it replaces."""
        replaced = self._replaced()
        written = [name for name in RENDER_OUTPUTS if name in replaced]
        slots = max(map(RENDER_OUTPUTS.index, written)) + 1
        render = ir.Node(
            OP_DOMAIN,
            "Render",
            self._inputs(graph),
            self._node_attributes(written),
            num_outputs=slots,
            name=f"{self._raster.name}_render",
        )
        for name, output in zip(RENDER_OUTPUTS, render.outputs, strict=False):
            if name in replaced:
                old = replaced[name]
                output.name, output.type, output.shape = old.name, old.type, old.shape
                old.replace_all_uses_with(output, replace_graph_outputs=True)
                old.name = f"{old.name}_replaced"
            else:
                output.name = ""
        graph.insert_before(self._raster, render)
        graph.remove([self._raster, *self.fused], safe=True)

    def _replaced(self) -> dict[str, ir.Value]:
        """What is read of the nodes that are fused, by the names of Render's outputs."""
        raster, fused = self._raster, self.fused
        values = {
            "face_index": raster.outputs[_FACE_INDEX],
            "depth": raster.outputs[_DEPTH] if len(raster.outputs) > _DEPTH else None,
            "barycentrics": raster.outputs[_BARYCENTRICS],
            "color": self._texture.outputs[0] if self._texture else None,
            "mask": self._mask.outputs[0] if self._mask else None,
            "uv": self._uv.outputs[0] if self._uv else None,
            **{f"interpolated_{k}": node.outputs[0] for k, node in enumerate(self._attributes)},
        }
        return {
            name: value
            for name, value in values.items()
            if value is not None and (value.is_graph_output() or any(node not in fused for node, _ in value.uses()))
        }

    def _inputs(self, graph: ir.Graph) -> list[ir.Value | None]:
        positions, faces, face_ranges, face_valid, image_size = _inputs(self._raster, 5)
        values: dict[str, ir.Value | None] = {
            "positions": positions,
            "faces": faces,
            "face_ranges": face_ranges,
            "face_valid": face_valid,
            "image_size": image_size,
        }
        if self._uv is not None and self._texture is not None:
            values |= {"uvs": self._uv.inputs[0], "uv_faces": self._uv.inputs[1], "texture": self._texture.inputs[0]}
        for k, node in enumerate(self._attributes):
            values |= {f"attributes_{k}": node.inputs[0], f"attribute_faces_{k}": node.inputs[1]}
        inputs = [values.get(name) for name in RENDER_INPUTS]
        while inputs[-1] is None:
            inputs.pop()
        return [
            self._stand_in(graph, name) if value is None else value
            for name, value in zip(RENDER_INPUTS, inputs, strict=False)
        ]

    def _stand_in(self, graph: ir.Graph, name: str) -> ir.Value | None:
        """What takes the place of an input that no output needs."""
        if name not in STAND_IN_SHAPES:
            return self._raster.inputs[1] if name.startswith(("uv_faces", "attribute_faces")) else None
        like = _input(self._attributes[0] if name.startswith("attributes_") and self._attributes else self._raster, 0)
        dtype = like.dtype
        assert dtype is not None, f"{like.name} has no type"
        value_name = f"{self._raster.name}_no_{name}"
        shape = STAND_IN_SHAPES[name]
        tensor = ir.tensor(np.zeros(shape).astype(dtype.numpy()), dtype=dtype, name=value_name)
        value = ir.Value(name=value_name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor)
        graph.register_initializer(value)
        return value

    def _node_attributes(self, written: list[str]) -> list[ir.Attr]:
        sources: list[tuple[ir.Node, tuple[str, ...]]] = [(self._raster, _RASTER_ATTRIBUTES + _PLUGIN_ATTRIBUTES)]
        sources += [(self._mask, _MASK_ATTRIBUTES)] if self._mask is not None else []
        sources += [(self._texture, _TEXTURE_ATTRIBUTES)] if self._texture is not None else []
        attributes = [node.attributes[name] for node, names in sources for name in names if name in node.attributes]
        attributes.append(ir.AttrString("outputs", ",".join(written)))
        if SHAPE_INPUTS_ATTRIBUTE in self._raster.attributes:
            attributes.append(ir.AttrInt64s(SHAPE_INPUTS_ATTRIBUTE, [RENDER_INPUTS.index("image_size")]))
        return attributes


def _behind(node: ir.Node) -> Iterator[ir.Node]:
    """The node and all that is computed from what it gives."""
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        yield current
        for output in current.outputs:
            for reader in (user for user, _ in output.uses()):
                if reader not in seen:
                    seen.add(reader)
                    pending.append(reader)


def _in_order(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """Sorted as they stand in their graph."""
    found = list(nodes)
    if not found:
        return []
    graph = found[0].graph
    assert graph is not None
    place = {node: index for index, node in enumerate(graph)}
    return sorted(set(found), key=place.__getitem__)


def _inputs(node: ir.Node, count: int) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * count][:count]


def _input(node: ir.Node, index: int) -> ir.Value:
    """An input that an op always has."""
    value = node.inputs[index]
    assert value is not None, f"{node.name} lacks input {index}"
    return value


def _text(node: ir.Node, name: str, default: str) -> str:
    return node.attributes[name].as_string() if name in node.attributes else default


def _is_all_faces(face_ranges: ir.Value | None, faces: ir.Value) -> bool:
    """Whether face_ranges gives every image all faces: absent, or what the exporter writes in its place."""
    if face_ranges is None:
        return True
    expand = face_ranges.producer()
    if expand is None or expand.op_type != "Expand" or faces.shape is None:
        return False
    one_range = ir.convenience.get_const_tensor(_input(expand, 0))
    return one_range is not None and one_range.numpy().ravel().tolist() == [0, faces.shape[0]]
