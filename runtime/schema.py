"""What an exported graph says about itself: the domain of its ops and the keys of its metadata."""

OP_DOMAIN = "ai.dibr"
OPS = ("Rasterize", "Interpolate", "SoftMask", "Texture", "Antialias", "Render")
"""Of the domain; every door has all of them."""

METADATA_SCHEMA_VERSION = "dibr.schema_version"
"""Version of the op schema that the graph uses, a decimal integer."""
METADATA_PRODUCER = "dibr.producer"
"""Name and version of the exporter."""
METADATA_OPSET = "dibr.opset"
"""Version of the standard ONNX opset, a decimal integer."""
METADATA_OUTPUTS = "dibr.outputs"
"""JSON object: meaning of each output by name."""

ONNXRUNTIME_API = 17
"""Of ONNX Runtime's C API that libdibr_onnxruntime.so asks for: ONNX Runtime 1.17 and newer load it."""
