"""Networks that turn an image into a textured mesh."""

from .image_to_mesh import ImageToMesh, ImageToMeshRenderer, MeshPrediction, ModelConfig, RenderedPrediction

__all__ = ["ImageToMesh", "ImageToMeshRenderer", "MeshPrediction", "ModelConfig", "RenderedPrediction"]
