"""Mesa's llvmpipe, a SIMD software OpenGL, through moderngl and EGL."""

from __future__ import annotations

import numpy as np

from ..scenes import Scene
from . import Peer, Task

_VERTEX = """
#version 430
in vec4 position;
void main() { gl_Position = position; }
"""

_GEOMETRY = """
#version 430
layout(triangles) in;
layout(triangle_strip, max_vertices = 3) out;
out vec2 weights;
void main() {
  for (int k = 0; k < 3; ++k) {
    gl_PrimitiveID = gl_PrimitiveIDIn;
    gl_Position = gl_in[k].gl_Position;
    weights = vec2(k == 0, k == 1);
    EmitVertex();
  }
}
"""

_FRAGMENT = """
#version 430
in vec2 weights;
layout(location = 0) out vec4 result;
void main() { result = vec4(weights, 1 - weights.x - weights.y, intBitsToFloat(gl_PrimitiveID + 1)); }
"""


class Llvmpipe(Peer):
    """Vertices are uploaded and one RGBA32F image (barycentrics, face index) is read back in every call.

    The index buffer stays on the other side. Pulling vertices in the vertex shader instead of the geometry shader took
    the same time, computing barycentrics in the fragment shader twice as long.
    """

    threaded = True

    def __init__(self, threads: int) -> None:
        import moderngl

        self.gl = moderngl
        self.context = moderngl.create_context(standalone=True, backend="egl", require=430)
        if "llvmpipe" not in self.version():
            raise RuntimeError(f"expected llvmpipe, got {self.version()}")

    @staticmethod
    def environment(threads: int) -> dict[str, str]:
        """One thread is LP_NUM_THREADS=0: everything on the caller's, which takes less CPU time than 1 beside it."""
        return {"LP_NUM_THREADS": str(threads if threads > 1 else 0), "LIBGL_ALWAYS_SOFTWARE": "1"}

    def version(self) -> str:
        info = self.context.info
        return f"{info['GL_RENDERER']}, {info['GL_VERSION']}, moderngl {self.gl.__version__}"

    def load(self, scene: Scene) -> None:
        self.context.gc_mode = "auto"
        self.scene = scene
        self.vertices = self.context.buffer(scene.positions[0].tobytes())
        program = self.context.program(_VERTEX, fragment_shader=_FRAGMENT, geometry_shader=_GEOMETRY)
        indices = self.context.buffer(scene.faces.tobytes())
        self.drawing = self.context.vertex_array(program, [(self.vertices, "4f", "position")], indices)
        size = (scene.size, scene.size)
        self.target = self.context.framebuffer(
            [self.context.texture(size, 4, dtype="f4")], self.context.depth_renderbuffer(size)
        )
        self.target.use()
        self.context.enable_only(self.gl.DEPTH_TEST | self.gl.CULL_FACE)
        self.output = np.empty((scene.batch, *size, 4), np.float32)

    def face_index(self) -> np.ndarray:
        self._draw()
        return np.ascontiguousarray(self.output[:, ::-1, :, 3]).view(np.int32) - 1

    def prepare_rasterize(self) -> Task:
        return self._draw

    def _draw(self) -> None:
        for positions, image in zip(self.scene.positions, self.output, strict=True):
            self.vertices.write(positions)
            self.target.clear(0, 0, 0, 0, depth=1.0)
            self.drawing.render(self.gl.TRIANGLES)
            self.target.read_into(image, components=4, dtype="f4")
