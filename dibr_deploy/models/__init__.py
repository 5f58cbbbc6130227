"""Networks that make textured meshes: of an image, or of a latent code."""

from .image_to_mesh import ImageToMesh, ImageToMeshRenderer, MeshPrediction, ModelConfig, RenderedPrediction
from .mesh_generator import GeneratorConfig, ImageCritic, MeshGenerator, MeshGeneratorRenderer

__all__ = [
    "GeneratorConfig",
    "ImageCritic",
    "ImageToMesh",
    "ImageToMeshRenderer",
    "MeshGenerator",
    "MeshGeneratorRenderer",
    "MeshPrediction",
    "ModelConfig",
    "RenderedPrediction",
]
