"""Every shading model inside of an ONNX graph gives, in ONNX Runtime, what it gives in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from small_meshes import box, egg
from stretches import LONGEST_ROW, stretches
from torch import Tensor, nn

from dibr_deploy.cameras import orbit, orthographic, perspective
from dibr_deploy.export import to_onnx, verify
from dibr_deploy.lighting import DirectionalLight, Phong
from dibr_deploy.mesh import icosphere, vertex_face_table
from dibr_deploy.packing import pack
from dibr_deploy.renderer import OUTPUTS, MeshRenderer

SPHERE = icosphere(2)
TABLE = vertex_face_table(SPHERE.faces, len(SPHERE.vertices))


def cameras(batch: int) -> Tensor:
    return perspective(0.8) @ orbit(torch.linspace(0.1, 3.0, batch), 0.3, 3.0)


class Shaded(nn.Module):
    """A sphere whose parameters of one shading model are inputs of the graph."""

    def __init__(self, shading: Callable[[Tensor], dict], **options: object) -> None:
        super().__init__()
        self.renderer = MeshRenderer(24, 20, background=(0.1, 0.2, 0.3), **options)
        self.shading = shading
        self.mesh = nn.ParameterDict(
            {
                name: nn.Parameter(value, requires_grad=False)
                for name, value in {
                    "vertices": SPHERE.vertices[None],
                    "faces": SPHERE.faces.int(),
                    "uvs": SPHERE.uvs,
                    "uv_faces": SPHERE.uv_faces.int(),
                    "vertex_faces": TABLE,
                    "colors": (SPHERE.vertices[None] + 1) / 2,
                }.items()
            }
        )

    def forward(self, world_to_clip: Tensor, parameters: Tensor) -> dict[str, Tensor]:
        surface = {"vertex_colors": self.mesh["colors"], **self.shading(parameters)}
        if "texture" in surface:
            del surface["vertex_colors"]
        return self.renderer(
            self.mesh["vertices"],
            self.mesh["faces"],
            world_to_clip,
            uvs=self.mesh["uvs"],
            uv_faces=self.mesh["uv_faces"],
            vertex_faces=self.mesh["vertex_faces"],
            outputs=OUTPUTS,
            **surface,
        )


def light(p: Tensor) -> DirectionalLight:
    return DirectionalLight(direction=p[:, :3] - 0.3, color=p[:, 3:6], ambient=p[:, 6:9])


def texture(p: Tensor) -> Tensor:
    return p[:, :48].reshape(-1, 3, 4, 4)


MODELS: dict[str, Callable[[Tensor], dict]] = {
    "vertex colour": lambda p: {},
    "texture": lambda p: {"texture": texture(p)},
    "lambert": lambda p: {"light": p[:, :4]},
    "lambert, coloured": lambda p: {"light": light(p)},
    "phong": lambda p: {"light": p[:, :4], "material": Phong(p[:, 4], 1 + 9 * p[:, 5], p[:, 6:9])},
    "phong, coloured": lambda p: {"light": light(p), "material": Phong(specular=p[:, 9:12], shininess=20.0)},
    "harmonics": lambda p: {"harmonics": p[:, :9]},
    "harmonics, coloured": lambda p: {"harmonics": p[:, :27].reshape(-1, 9, 3)},
    "both lights": lambda p: {"harmonics": p[:, :9], "light": p[:, 9:13]},
    "given normals": lambda p: {"light": light(p), "normals": SPHERE.vertices + p[:, None, :3]},
    "normal map": lambda p: {"light": light(p), "texture": texture(p), "normal_map": texture(p[:, 48:])},
    "fine texture": lambda p: {"texture": texture(p).repeat(1, 1, 32, 20), "normal_map": texture(p[:, 48:])},
}
MIPMAPS = {"filter": "trilinear"}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        *((model, {}) for model in MODELS),
        *((model, {"smooth": False}) for model in ("lambert", "phong", "normal map")),
        ("fine texture", MIPMAPS),
        ("fine texture", {**MIPMAPS, "perspective_correct": False, "wrap": "mirror", "antialias": True}),
    ],
)
def test_a_shading_model_is_the_same_in_onnx_runtime(model: str, options: dict, tmp_path: Path) -> None:
    module = Shaded(MODELS[model], **options)
    path = to_onnx(module, (cameras(2), torch.rand(2, 96)), tmp_path / "model.onnx")
    report = verify(module, path, (cameras(3), torch.rand(3, 96)))
    print(report)
    assert report.passed
    assert report.covered is not None and report.covered > 0.2
    assert [difference.output for difference in report.differences] == list(OUTPUTS)
    assert min(stretches(onnx.load(path), 2 * 24 * 20).values()) > LONGEST_ROW


class AnySize(nn.Module):
    """Mip levels depend on the size of the image, which is an input here."""

    def forward(self, world_to_clip: Tensor, texture: Tensor, like: Tensor) -> dict[str, Tensor]:
        return MeshRenderer(1, 1, filter="trilinear")(
            SPHERE.vertices[None],
            SPHERE.faces,
            world_to_clip,
            texture=texture,
            uvs=SPHERE.uvs,
            uv_faces=SPHERE.uv_faces,
            height=like.shape[0],
            width=like.shape[1],
            outputs=("image",),
        )


def test_mip_levels_follow_a_dynamic_image_size(tmp_path: Path) -> None:
    texture = torch.rand(1, 3, 64, 64)
    shapes = {"like": {0: "H", 1: "W"}}
    example = (cameras(1), texture, torch.zeros(20, 24))
    path = to_onnx(AnySize(), example, tmp_path / "model.onnx", dynamic_batch=False, dynamic_shapes=shapes)
    for size in ((20, 24), (9, 40)):
        assert verify(AnySize(), path, (cameras(1), texture, torch.zeros(*size))).passed


class OrthographicHighlight(nn.Module):
    """A parallel projection, where the viewer is a direction, and only the outputs asked for."""

    def forward(self, half_height: Tensor) -> dict[str, Tensor]:
        return MeshRenderer(16, 16)(
            SPHERE.vertices[None],
            SPHERE.faces,
            orthographic(half_height) @ orbit(0.4, 0.2, 3.0),
            vertex_colors=torch.full_like(SPHERE.vertices, 0.2)[None],
            light=torch.tensor([[0.1, 0.3, 0.4, 0.5]]),
            material=Phong(0.8, 8.0),
            vertex_faces=TABLE,
            outputs=("image", "normal"),
        )


def test_only_what_is_asked_for_is_in_the_graph(tmp_path: Path) -> None:
    path = to_onnx(OrthographicHighlight(), torch.tensor([1.2, 1.4]), tmp_path / "model.onnx")
    assert verify(OrthographicHighlight(), path, torch.tensor([1.1, 1.3, 2.0])).passed
    assert "SoftMask" not in {node.op_type for node in onnx.load(path).graph.node}


class Packed(nn.Module):
    """A box and an egg side by side in one batch, lit by the normals of each."""

    def __init__(self) -> None:
        super().__init__()
        self.meshes = pack([box(), egg()])
        self.vertex_faces = vertex_face_table(self.meshes.faces, self.meshes.vertices.shape[1])

    def forward(self, world_to_clip: Tensor) -> object:
        meshes = self.meshes
        return MeshRenderer(20, 20)(
            meshes.vertices,
            meshes.faces,
            world_to_clip,
            vertex_colors=meshes.vertex_colors,
            light=torch.tensor([[0.2, 0.4, 0.3, 0.6]]),
            vertex_faces=self.vertex_faces,
            face_ranges=meshes.face_ranges,
        )


def test_different_topologies_are_the_same_in_onnx_runtime(tmp_path: Path) -> None:
    pair = cameras(2)
    path = to_onnx(Packed(), pair, tmp_path / "model.onnx", dynamic_batch=False)
    report = verify(Packed(), path, pair)
    assert report.passed, str(report)
    assert report.covered is not None and report.covered > 0.1
