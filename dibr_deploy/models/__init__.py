"""Networks that make textured meshes: of an image, or of a latent code."""

from .image_to_mesh import ImageToMesh, ImageToMeshRenderer, ModelConfig
from .mesh_generator import GeneratorConfig, ImageCritic, MeshGenerator, MeshGeneratorRenderer
from .sphere import MeshPrediction, RenderedPrediction, SphereNetwork, SphereRenderer

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
    "SphereNetwork",
    "SphereRenderer",
]
