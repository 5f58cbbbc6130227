"""torch.compile and torch.export of code that calls dibr_deploy.ops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.export import Dim, export

from dibr_deploy import ops


def render(positions: Tensor, faces: Tensor, attributes: Tensor, texture: Tensor, height: int, width: int):
    raster = ops.rasterize(positions, faces, height, width)
    uv = ops.interpolate(attributes[..., :2], faces, raster.face_index, raster.barycentrics)
    image = ops.texture(texture, uv, wrap="mirror")
    mask = ops.soft_mask(positions, faces, raster.face_index, sigmainv=100.0, boxlen=0.2)
    smooth = ops.antialias(image, positions, faces, raster.face_index, raster.barycentrics)
    return raster.face_index, raster.depth, smooth, mask


def test_compiled_code_gives_the_same_bits_and_gradients(mesh) -> None:
    """Gradients to rounding: eager code goes from an image to positions at once, compiled code by the barycentrics."""
    compiled = torch.compile(render, fullgraph=True, backend="aot_eager")
    inputs = [mesh.positions[..., :3] * 0.6, mesh.attributes, mesh.texture]
    results = []
    for function in (render, compiled):
        positions, attributes, texture = (value.clone().requires_grad_() for value in inputs)
        outputs = function(positions, mesh.faces.long(), attributes, texture, 9, 12)
        loss = outputs[1].sum() + outputs[2].square().sum() + outputs[3].sum()
        results.append((outputs, torch.autograd.grad(loss, (positions, attributes, texture))))
    (eager_outputs, eager_gradients), (traced_outputs, traced_gradients) = results
    for eager, traced in zip(eager_outputs, traced_outputs, strict=True):
        assert torch.equal(eager, traced)
    torch.testing.assert_close(eager_gradients, traced_gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_inductor_compiles_the_chain_in_one_graph(mesh) -> None:
    compiled = torch.compile(render, fullgraph=True)
    arguments = (mesh.positions, mesh.faces.long(), mesh.attributes, mesh.texture)
    for expected, actual in zip(render(*arguments, 9, 12), compiled(*arguments, 9, 12), strict=True):
        torch.testing.assert_close(actual, expected)


def test_batch_and_image_size_are_dynamic_under_compile(mesh) -> None:
    graphs = CompileCounter()
    compiled = torch.compile(render, fullgraph=True, dynamic=True, backend=graphs)
    for batch, height, width in ((2, 9, 12), (3, 20, 7), (5, 4, 4)):
        positions, attributes = mesh.positions[:1].expand(batch, -1, -1), mesh.attributes[:1].expand(batch, -1, -1)
        arguments = (positions, mesh.faces, attributes, mesh.texture, height, width)
        for expected, actual in zip(render(*arguments), compiled(*arguments), strict=True):
            torch.testing.assert_close(actual, expected)
    assert graphs.frame_count <= 2


class Renderer(nn.Module):
    """A module as users export it: the image is as large as an input tensor, the topology is a buffer."""

    def __init__(self, faces: Tensor) -> None:
        super().__init__()
        self.register_buffer("faces", faces)

    def forward(self, positions: Tensor, attributes: Tensor, texture: Tensor, like: Tensor):
        return render(positions, self.faces, attributes, texture, like.shape[1], like.shape[2])


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_export_with_dynamic_batch_and_image_size(mesh, strict: bool, index_dtype: torch.dtype) -> None:
    module = Renderer(mesh.faces.to(index_dtype))
    batch = Dim("batch")
    shapes = ({0: batch}, {0: batch}, None, {0: batch, 1: Dim("height", max=1024), 2: Dim("width", max=1024)})
    like = torch.zeros(2, 9, 12)
    program = export(
        module, (mesh.positions, mesh.attributes, mesh.texture, like), dynamic_shapes=shapes, strict=strict
    )
    calls = [str(node.target) for node in program.graph.nodes if str(node.target).startswith("dibr.")]
    assert calls == [
        "dibr.rasterize.default",
        "dibr.interpolate.default",
        "dibr.texture.default",
        "dibr.soft_mask.default",
        "dibr.antialias.default",
    ]
    for size in ((5, 6, 8), (3, 31, 2)):
        arguments = (
            mesh.positions[:1].expand(size[0], -1, -1),
            mesh.attributes[:1].expand(size[0], -1, -1),
            mesh.texture,
            torch.zeros(size),
        )
        for expected, actual in zip(module(*arguments), program.module()(*arguments), strict=True):
            assert torch.equal(expected, actual)


def test_traced_graphs_refuse_int64_indices_that_do_not_fit(mesh) -> None:
    """A trace cannot ask for values; what would wrap around to a valid index must not."""
    compiled = torch.compile(lambda p, f: ops.rasterize(p, f, 4, 4).face_index, fullgraph=True, backend="aot_eager")
    for offset in (2**32, -(2**32)):
        with pytest.raises(RuntimeError, match=r"faces\[0, 0\] = -?\d+ is out of range for 12 vertices"):
            compiled(mesh.positions, mesh.faces.long() + offset)
