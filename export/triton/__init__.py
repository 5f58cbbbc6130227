"""A model repository for the Triton Inference Server: one model, for up to three of its backends.

``to_triton`` writes it. ``configuration`` says what Triton reads in ``config.pbtxt``, ``batching`` gives every output
the batch axis that Triton asks for, and ``python_model`` is what its Python backend runs.
"""

from .repository import INSTANCES, MAX_BATCH, WrittenModel, to_triton

__all__ = ["INSTANCES", "MAX_BATCH", "WrittenModel", "to_triton"]
