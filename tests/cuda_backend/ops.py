"""The ops on numpy arrays, on either device of one library: the same call, so that two devices can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from oracle.scenes import Scene

from cuda_backend.abi import BFLOAT16, DTYPES, RENDER_OUTPUTS, Library, aligned


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """float32 -> uint16 bits of the nearest bfloat16, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _code(array: np.ndarray) -> int:
    return BFLOAT16 if array.dtype == np.uint16 else DTYPES[array.dtype]


def _interpolated(path: str, values: np.ndarray, faces: np.ndarray, output: np.ndarray | None) -> dict[str, object]:
    """Fields of one array that Render interpolates."""
    fields = {**dict(zip(("batch", "vertices", "channels"), values.shape, strict=True)), "values": values}
    fields |= {"face_indices": np.ascontiguousarray(faces, np.int32), "output": output}
    return {f"{path}.{name}": value for name, value in fields.items()}


@dataclass(frozen=True)
class Device:
    library: Library
    code: int
    deterministic: bool = False

    def _mesh(self, scene: Scene) -> dict[str, object]:
        return {
            "batch": scene.positions.shape[0],
            "vertices": scene.positions.shape[1],
            "faces": scene.faces.shape[0],
            "height": scene.height,
            "width": scene.width,
            "positions": np.ascontiguousarray(scene.positions),
            "face_indices": np.ascontiguousarray(scene.faces, np.int32),
        }

    def rasterize(self, scene: Scene, perspective_correct: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """face_index, barycentrics, depth."""
        shape = (scene.positions.shape[0], scene.height, scene.width)
        dtype = scene.positions.dtype
        out = aligned(shape, np.int32), aligned((*shape, 3), dtype), aligned(shape, dtype)
        keep = {
            "face_ranges": None if scene.face_ranges is None else np.ascontiguousarray(scene.face_ranges, np.int32),
            "face_valid": None if scene.face_valid is None else np.ascontiguousarray(scene.face_valid, np.int32),
        }
        self.library.run(
            "rasterize",
            self.code,
            DTYPES[dtype],
            **self._mesh(scene),
            **keep,
            perspective_correct=int(perspective_correct),
            cull=int(scene.cull == "back"),
            depth_clip=int(scene.depth_clip),
            face_index=out[0],
            barycentrics=out[1],
            depth=out[2],
        )
        return out

    def rasterize_backward(
        self,
        scene: Scene,
        face_index: np.ndarray,
        grad_barycentrics: np.ndarray | None,
        grad_depth: np.ndarray | None,
        perspective_correct: bool = True,
    ) -> np.ndarray:
        out = aligned(scene.positions.shape, scene.positions.dtype)
        self.library.run(
            "rasterize_backward",
            self.code,
            DTYPES[scene.positions.dtype],
            **self._mesh(scene),
            deterministic=int(self.deterministic),
            perspective_correct=int(perspective_correct),
            face_index=face_index,
            grad_barycentrics=grad_barycentrics,
            grad_depth=grad_depth,
            grad_positions=out,
        )
        return out

    def _soft_mask(self, op: str, scene: Scene, options: dict[str, float], **arrays: np.ndarray) -> None:
        settings: dict[str, float] = {"sigmainv": 7000.0, "boxlen": 0.02, "knum": 30, **options}
        ranges = None if scene.face_ranges is None else np.ascontiguousarray(scene.face_ranges, np.int32)
        dtype = DTYPES[scene.positions.dtype]
        self.library.run(op, self.code, dtype, **self._mesh(scene), face_ranges=ranges, **settings, **arrays)

    def soft_mask(self, scene: Scene, face_index: np.ndarray, **options: float) -> np.ndarray:
        out = aligned(face_index.shape, scene.positions.dtype)
        self._soft_mask("soft_mask", scene, options, face_index=face_index, mask=out)
        return out

    def soft_mask_backward(
        self, scene: Scene, face_index: np.ndarray, grad_mask: np.ndarray, **options: float
    ) -> np.ndarray:
        out = aligned(scene.positions.shape, scene.positions.dtype)
        options = {**options, "deterministic": int(self.deterministic)}
        self._soft_mask(
            "soft_mask_backward", scene, options, face_index=face_index, grad_mask=grad_mask, grad_positions=out
        )
        return out

    @staticmethod
    def _attributes(attributes: np.ndarray, faces: np.ndarray, face_index: np.ndarray) -> dict[str, object]:
        return {
            "batch": face_index.shape[0],
            "attribute_batch": attributes.shape[0],
            "vertices": attributes.shape[1],
            "channels": attributes.shape[2],
            "faces": faces.shape[0],
            "height": face_index.shape[1],
            "width": face_index.shape[2],
            "attributes": attributes,
            "face_indices": np.ascontiguousarray(faces, np.int32),
            "face_index": face_index,
        }

    def interpolate(
        self, attributes: np.ndarray, faces: np.ndarray, face_index: np.ndarray, barycentrics: np.ndarray
    ) -> np.ndarray:
        out = aligned((*face_index.shape, attributes.shape[2]), attributes.dtype)
        mesh = self._attributes(attributes, faces, face_index)
        self.library.run("interpolate", self.code, _code(attributes), **mesh, barycentrics=barycentrics, output=out)
        return out

    def interpolate_backward(
        self,
        attributes: np.ndarray,
        faces: np.ndarray,
        face_index: np.ndarray,
        barycentrics: np.ndarray,
        grad_output: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of attributes and barycentrics."""
        out = aligned(attributes.shape, attributes.dtype), aligned(barycentrics.shape, barycentrics.dtype)
        self.library.run(
            "interpolate_backward",
            self.code,
            _code(attributes),
            **self._attributes(attributes, faces, face_index),
            deterministic=int(self.deterministic),
            barycentrics=barycentrics,
            grad_output=grad_output,
            grad_attributes=out[0],
            grad_barycentrics=out[1],
        )
        return out

    def interpolate_raster_backward(
        self,
        attributes: np.ndarray,
        scene: Scene,
        face_index: np.ndarray,
        barycentrics: np.ndarray,
        grad_output: np.ndarray,
        *,
        perspective_correct: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of attributes, which share the scene's faces, and positions."""
        out = aligned(attributes.shape, attributes.dtype), aligned(scene.positions.shape, scene.positions.dtype)
        faces = np.ascontiguousarray(scene.faces, np.int32)
        self.library.run(
            "interpolate_raster_backward",
            self.code,
            _code(attributes),
            **self._attributes(attributes, faces, face_index),
            raster_vertices=scene.positions.shape[1],
            deterministic=int(self.deterministic),
            perspective_correct=int(perspective_correct),
            barycentrics=barycentrics,
            positions=np.ascontiguousarray(scene.positions),
            raster_face_indices=faces,
            grad_output=grad_output,
            grad_attributes=out[0],
            grad_positions=out[1],
        )
        return out

    @staticmethod
    def _texture(
        texture: np.ndarray, uv: np.ndarray, filter: int, wrap: int, mip_level: np.ndarray | None
    ) -> dict[str, object]:
        return {
            "batch": uv.shape[0],
            "texture_batch": texture.shape[0],
            "channels": texture.shape[1],
            "texture_height": texture.shape[2],
            "texture_width": texture.shape[3],
            "height": uv.shape[1],
            "width": uv.shape[2],
            "filter": filter,
            "wrap": wrap,
            "texture": texture,
            "uv": uv,
            "mip_level": mip_level,
        }

    def texture(
        self, texture: np.ndarray, uv: np.ndarray, filter: int, wrap: int, mip_level: np.ndarray | None = None
    ) -> np.ndarray:
        out = aligned((*uv.shape[:3], texture.shape[1]), texture.dtype)
        arguments = self._texture(texture, uv, filter, wrap, mip_level)
        self.library.run("texture", self.code, _code(texture), **arguments, output=out)
        return out

    def texture_backward(
        self,
        texture: np.ndarray,
        uv: np.ndarray,
        grad_output: np.ndarray,
        filter: int,
        wrap: int,
        mip_level: np.ndarray | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Gradients of texture and uv, and of the mip level where there is one."""
        shapes = [texture.shape, uv.shape] + ([] if mip_level is None else [mip_level.shape])
        out = tuple(aligned(shape, uv.dtype) for shape in shapes)
        self.library.run(
            "texture_backward",
            self.code,
            _code(texture),
            **self._texture(texture, uv, filter, wrap, mip_level),
            deterministic=int(self.deterministic),
            grad_output=grad_output,
            grad_texture=out[0],
            grad_uv=out[1],
            grad_mip_level=out[2] if len(out) > 2 else None,
        )
        return out

    def _antialias(self, scene: Scene, image: np.ndarray, face_index: np.ndarray, barycentrics: np.ndarray) -> dict:
        return {
            **self._mesh(scene),
            "face_ranges": None if scene.face_ranges is None else np.ascontiguousarray(scene.face_ranges, np.int32),
            "channels": image.shape[3],
            "image": image,
            "face_index": face_index,
            "barycentrics": barycentrics,
        }

    def antialias(
        self, scene: Scene, image: np.ndarray, face_index: np.ndarray, barycentrics: np.ndarray
    ) -> np.ndarray:
        out = aligned(image.shape, image.dtype)
        arguments = self._antialias(scene, image, face_index, barycentrics)
        self.library.run("antialias", self.code, _code(image), **arguments, output=out)
        return out

    def antialias_backward(
        self,
        scene: Scene,
        image: np.ndarray,
        face_index: np.ndarray,
        barycentrics: np.ndarray,
        grad_output: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of image and positions."""
        out = aligned(image.shape, image.dtype), aligned(scene.positions.shape, scene.positions.dtype)
        self.library.run(
            "antialias_backward",
            self.code,
            _code(image),
            **self._antialias(scene, image, face_index, barycentrics),
            deterministic=int(self.deterministic),
            grad_output=grad_output,
            grad_image=out[0],
            grad_positions=out[1],
        )
        return out

    def render(
        self,
        scene: Scene,
        outputs: Sequence[str],
        uvs: np.ndarray,
        uv_faces: np.ndarray,
        texture: np.ndarray,
        attributes: Sequence[tuple[np.ndarray, np.ndarray]] = (),
        perspective_correct: bool = True,
        filter: int = 1,
        wrap: int = 0,
        **mask: float,
    ) -> dict[str, np.ndarray]:
        """outputs: out of RENDER_OUTPUTS. attributes: values [B or 1, V, D] and faces [F, 3] of each, all interpolated,
        under the names interpolated_0, ..."""
        dtype, image = scene.positions.dtype, (scene.positions.shape[0], scene.height, scene.width)
        shapes = {
            "color": ((*image, texture.shape[1]), texture.dtype),
            "mask": (image, dtype),
            "face_index": (image, np.int32),
            "depth": (image, dtype),
            "barycentrics": ((*image, 3), dtype),
            "uv": ((*image, 2), dtype),
        }
        out = {name: aligned(*shapes[name]) for name in RENDER_OUTPUTS if name in outputs}
        groups: dict[str, object] = {}
        for k, (values, faces) in enumerate(attributes):
            out[f"interpolated_{k}"] = aligned((*image, values.shape[2]), values.dtype)
            groups |= _interpolated(f"attributes.{k}", values, faces, out[f"interpolated_{k}"])
        bits = [1 << bit for bit, name in enumerate(RENDER_OUTPUTS) if name in outputs]
        bits += [1 << len(RENDER_OUTPUTS) + k for k in range(len(attributes))]
        ranges, valid = (
            None if array is None else np.ascontiguousarray(array, np.int32)
            for array in (scene.face_ranges, scene.face_valid)
        )
        self.library.run(
            "render",
            self.code,
            DTYPES[dtype],
            **self._mesh(scene),
            face_ranges=ranges,
            face_valid=valid,
            texture_dtype=_code(texture),
            attribute_dtype=_code(attributes[0][0]) if attributes else DTYPES[dtype],
            outputs=sum(bits),
            perspective_correct=int(perspective_correct),
            cull=int(scene.cull == "back"),
            depth_clip=int(scene.depth_clip),
            **{"sigmainv": 7000.0, "boxlen": 0.02, "knum": 30, **mask},
            **_interpolated("uv", uvs, uv_faces, out.get("uv")),
            **groups,
            texture_batch=texture.shape[0],
            texture_channels=texture.shape[1],
            texture_height=texture.shape[2],
            texture_width=texture.shape[3],
            filter=filter,
            wrap=wrap,
            texture=texture,
            **{name: out.get(name) for name in RENDER_OUTPUTS if name != "uv"},
        )
        return out
