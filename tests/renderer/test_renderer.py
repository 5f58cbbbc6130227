"""MeshRenderer as a module: gradients, tracing, symbolic sizes, arguments."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dibr_deploy import ops
from dibr_deploy.cameras import orbit, perspective, project
from dibr_deploy.errors import DibrError
from dibr_deploy.lighting import DirectionalLight, Phong, make_light
from dibr_deploy.mesh import icosphere, vertex_face_table
from dibr_deploy.renderer import MeshRenderer

SPHERE = icosphere(1)


def cameras(batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    azimuth = torch.linspace(0.1, 3.0, batch, dtype=dtype)
    return perspective(torch.tensor(0.8, dtype=dtype)) @ orbit(azimuth, 0.3, 3.0)


class TexturedSphere(torch.nn.Module):
    """A MeshRenderer with a template's topology, as a network would hold it."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.renderer = MeshRenderer(size, size)
        self.register_buffer("faces", SPHERE.faces.int())
        self.register_buffer("uvs", SPHERE.uvs)
        self.register_buffer("uv_faces", SPHERE.uv_faces.int())
        self.register_buffer("vertex_faces", vertex_face_table(SPHERE.faces, len(SPHERE.vertices)))

    def forward(self, vertices: Tensor, texture: Tensor, light: Tensor, world_to_clip: Tensor, height=None, width=None):
        return self.renderer(
            vertices,
            self.faces,
            world_to_clip,
            texture=texture,
            uvs=self.uvs.to(vertices.dtype),
            uv_faces=self.uv_faces,
            light=light,
            vertex_faces=self.vertex_faces,
            height=height,
            width=width,
        )


def arguments(batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    vertices = SPHERE.vertices.to(dtype) * (1 + 0.1 * torch.rand(batch, len(SPHERE.vertices), 1, dtype=dtype))
    light = make_light(torch.full((batch,), 0.4, dtype=dtype), torch.rand(batch, 3, dtype=dtype), 0.5)
    return vertices, torch.rand(batch, 3, 32, 32, dtype=dtype), light, cameras(batch, dtype)


def test_image_gradients_match_finite_differences() -> None:
    """A sphere larger than the image: no pixel is near an outline, where the image is not differentiable."""
    module = TexturedSphere(4).double()
    vertices, texture, light, _ = arguments(2, torch.float64)
    close = perspective(torch.tensor(0.2, dtype=torch.float64)) @ orbit(
        torch.tensor([0.2, 1.0], dtype=torch.float64), 0.4, 3.0
    )
    inputs = tuple(t.detach().requires_grad_() for t in (vertices, texture, light, close))
    assert bool((module(*inputs).face_index >= 0).all())
    assert torch.autograd.gradcheck(lambda *a: module(*a).image, inputs, fast_mode=True)


def test_mask_gradient_matches_finite_differences() -> None:
    module = TexturedSphere(8).double()
    vertices, *rest = arguments(1, torch.float64)
    vertices.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: module(v, *rest).mask, (vertices,), eps=1e-7, atol=1e-4, fast_mode=True)


def test_one_mesh_is_seen_by_many_cameras() -> None:
    module, (vertices, texture, light, _) = TexturedSphere(), arguments(1)
    together = module(vertices, texture, light, cameras(3))
    for index in range(3):
        alone = module(vertices, texture, light, cameras(3)[index : index + 1])
        torch.testing.assert_close(together.image[index], alone.image[0])
        assert torch.equal(together.face_index[index], alone.face_index[0])


def test_normals_from_the_table_are_those_without_it() -> None:
    module, inputs = TexturedSphere(), arguments(2)
    with_table = module(*inputs)
    module.vertex_faces = None
    torch.testing.assert_close(module(*inputs).image, with_table.image)


def test_culling_and_projection_settings_reach_the_raster() -> None:
    vertices, _, _, world_to_clip = arguments(1)
    inside_out = SPHERE.faces.flip(1)
    colors = torch.rand(1, len(SPHERE.vertices), 3)
    culled = MeshRenderer(16, 16, cull="back")
    front = culled(vertices, SPHERE.faces, world_to_clip, vertex_colors=colors)
    back = culled(vertices, inside_out, world_to_clip, vertex_colors=colors)
    assert torch.equal(front.face_index >= 0, back.face_index >= 0)
    assert bool((front.depth < back.depth)[front.face_index >= 0].all())
    linear = MeshRenderer(16, 16, perspective_correct=False)(
        vertices, SPHERE.faces, world_to_clip, vertex_colors=colors
    )
    assert not torch.allclose(linear.image, front.image)


def test_compiles_into_one_graph() -> None:
    module, inputs = TexturedSphere(), arguments(2)
    inputs[0].requires_grad_()
    expected = module(*inputs)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    actual = compiled(*inputs)
    assert torch.equal(actual.face_index, expected.face_index)
    torch.testing.assert_close(actual.image, expected.image)
    gradients = [torch.autograd.grad(r.image.sum() + r.mask.sum(), inputs[0])[0] for r in (actual, expected)]
    torch.testing.assert_close(*gradients)


def test_every_term_of_the_shading_compiles_into_one_graph() -> None:
    vertices, texture, light, world_to_clip = arguments(2)

    def shade(vertices: Tensor, texture: Tensor, light: Tensor, world_to_clip: Tensor) -> Tensor:
        return MeshRenderer(12, 12)(
            vertices,
            SPHERE.faces,
            world_to_clip,
            texture=texture,
            uvs=SPHERE.uvs,
            uv_faces=SPHERE.uv_faces,
            light=DirectionalLight(light[:, 1:], light[:, :1], light[:, :1]),
            harmonics=torch.eye(9)[:1],
            material=Phong(light[:, 0], 8.0),
            normal_map=texture,
        ).image

    compiled = torch.compile(shade, backend="aot_eager", fullgraph=True)
    inputs = (vertices.requires_grad_(), texture, light, world_to_clip)
    torch.testing.assert_close(compiled(*inputs), shade(*inputs))
    gradients = [torch.autograd.grad(call(*inputs).sum(), vertices)[0] for call in (compiled, shade)]
    torch.testing.assert_close(*gradients)


def test_exports_with_dynamic_batch_and_size() -> None:
    module = TexturedSphere()
    batch, size = torch.export.Dim("batch", min=1, max=512), torch.export.Dim.DYNAMIC
    shapes = {name: {0: batch} for name in ("vertices", "texture", "light", "world_to_clip")}
    program = torch.export.export(
        module,
        arguments(2),
        {"height": 20, "width": 24},
        dynamic_shapes={**shapes, "height": size, "width": size},
        strict=False,
    )
    inputs = arguments(5)
    actual, expected = (call(*inputs, height=9, width=33) for call in (program.module(), module))
    assert actual.image.shape == (5, 9, 33, 3)
    assert torch.equal(actual.face_index, expected.face_index)
    torch.testing.assert_close(actual.image, expected.image)


def test_an_empty_batch_gives_an_empty_image() -> None:
    rendering = TexturedSphere()(*(argument[:0] for argument in arguments(1)))
    assert rendering.image.shape == (0, 16, 16, 3)


def test_a_mesh_without_faces_gives_background() -> None:
    vertices, _, light, world_to_clip = arguments(1)
    faces, colors = torch.empty(0, 3, dtype=torch.int64), torch.rand(1, len(SPHERE.vertices), 3)
    rendering = MeshRenderer(8, 8, background=(1.0, 0.5, 0.0))(
        vertices, faces, world_to_clip, vertex_colors=colors, light=light
    )
    assert bool((rendering.image == torch.tensor([1.0, 0.5, 0.0])).all())
    assert rendering.mask.max() == 0


def test_vertices_that_are_not_finite_leave_finite_images_and_gradients() -> None:
    module, (vertices, texture, light, world_to_clip) = TexturedSphere(), arguments(1)
    vertices[0, 3] = float("nan")
    rendering = module(vertices.requires_grad_(), texture.requires_grad_(), light, world_to_clip)
    assert bool((rendering.face_index >= 0).any())
    (rendering.mask.sum() + rendering.image.sum()).backward()
    for tensor in (rendering.mask, rendering.image, vertices.grad, texture.grad):
        assert bool(torch.isfinite(tensor).all())
    assert torch.equal(vertices.grad[0, 3], torch.zeros(3))


@pytest.mark.parametrize("given", ["neither", "both"])
def test_colors_and_texture_exclude_each_other(given: str) -> None:
    vertices, texture, _, world_to_clip = arguments(1)
    surface = {} if given == "neither" else {"texture": texture, "vertex_colors": vertices}
    with pytest.raises(DibrError, match=f"either vertex_colors or texture with uvs, but got {given}"):
        MeshRenderer(8, 8)(vertices, SPHERE.faces, world_to_clip, **surface)


def test_bad_sizes_and_a_texture_without_uvs_are_named() -> None:
    with pytest.raises(DibrError, match="height and width must be at least 1, but are 0 and 8"):
        MeshRenderer(0, 8)
    vertices, texture, _, world_to_clip = arguments(1)
    with pytest.raises(DibrError, match="uvs is None"):
        MeshRenderer(8, 8)(vertices, SPHERE.faces, world_to_clip, texture=texture)


def test_a_camera_of_another_dtype_is_named() -> None:
    with pytest.raises(
        DibrError, match=r"world_to_clip must have the dtype of vertices, torch\.float64, but has torch\.float32"
    ):
        MeshRenderer(8, 8)(
            SPHERE.vertices[None].double(), SPHERE.faces, cameras(1), vertex_colors=SPHERE.vertices[None]
        )


def test_meshes_and_cameras_that_do_not_pair_are_named() -> None:
    with pytest.raises(DibrError, match="must have the same B, but have 3 and 2"):
        MeshRenderer(8, 8)(
            SPHERE.vertices.expand(3, -1, -1), SPHERE.faces, cameras(2), vertex_colors=SPHERE.vertices[None]
        )


@pytest.mark.parametrize("shape", [(4,), (1, 3), (2, 4)])
def test_a_light_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(DibrError, match=r"light must be \[1 or 1, 4\], but is"):
        MeshRenderer(8, 8)(
            SPHERE.vertices[None],
            SPHERE.faces,
            cameras(1),
            vertex_colors=SPHERE.vertices[None],
            light=torch.rand(shape),
        )


@pytest.mark.parametrize("option", [{"cull": "front"}, {"filter": "linear"}, {"wrap": "tile"}])
def test_a_choice_that_does_not_exist_is_refused_at_once(option: dict[str, str]) -> None:
    with pytest.raises(DibrError, match=f"{next(iter(option))} must be one of"):
        MeshRenderer(8, 8, **option)


@pytest.mark.parametrize("wrap", ["clamp", "repeat", "mirror"])
@pytest.mark.parametrize("filter", ["nearest", "bilinear", "trilinear"])
def test_filter_and_wrap_reach_the_texture(filter: str, wrap: str) -> None:
    """A square of the image's size whose uvs run from -1 to 2: the picture is the sampled texture."""
    corners = torch.tensor([[-1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]])
    uvs = torch.tensor([[-1.0, -1], [-1, 2], [2, 2], [2, -1]])
    faces, texture, size = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.rand(1, 3, 9, 9), 12
    image = MeshRenderer(size, size, filter=filter, wrap=wrap)(
        corners[None], faces, torch.eye(4)[None], texture=texture, uvs=uvs
    ).image
    at = -1 + 3 * (torch.arange(size) + 0.5) / size
    uv = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)[None]
    level = torch.full((1, size, size), math.log2(27 / size)) if filter == "trilinear" else None
    expected = ops.texture(texture, uv, filter=filter, wrap=wrap, mip_level=level)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_antialias_blends_the_outline_of_the_finished_image() -> None:
    sphere, camera = icosphere(2), (perspective(0.7) @ orbit(0.3, 0.2, 4.0))[None]
    given = {"vertex_colors": torch.rand(1, len(sphere.vertices), 3), "light": torch.tensor([[0.2, 0.3, 0.4, 0.5]])}
    hard, blended = (
        MeshRenderer(24, 24, background=(1.0, 0.5, 0.0), antialias=antialias)(
            sphere.vertices[None], sphere.faces, camera, **given
        ).image
        for antialias in (False, True)
    )
    clip = project(sphere.vertices[None], camera)
    raster = ops.rasterize(clip, sphere.faces, 24, 24)
    expected = ops.antialias(hard, clip, sphere.faces, raster.face_index, raster.barycentrics)
    assert torch.equal(blended, expected)
    assert (blended != hard).any()
