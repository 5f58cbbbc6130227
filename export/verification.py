"""Does the exported model give what the torch module gives? All doors run on the same inputs as torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import Difference, Report, compare_doors
from dibr_deploy.runtime.kinds import is_bundle
from dibr_deploy.runtime.onnx_file import existing_file, parse_interface

from .exporter import evaluation_mode, named_outputs
from .images import as_the_model_takes

__all__ = ["Difference", "Report", "verify"]


def verify(
    module: nn.Module,
    path: str | Path,
    inputs: Sequence[Tensor] | Tensor,
    *,
    doors: Sequence[str] | None = None,
    tolerance: float | None = None,
    threads: int | None = None,
) -> Report:
    """Run a module in torch and its exported model through every door that opens here, and compare every output.

    Args:
        module: what was exported; it runs in evaluation mode.
        path: the ONNX file that ``to_onnx`` wrote, or a bundle.
        inputs: tensors, one per input of the module's forward, of any batch size. Photos for a model that was exported
            with ``photo_input`` are rounded to bytes first, for torch too.
        doors: names from ``dibr_deploy.runtime.comparison.DOORS``, none of which may then be absent; None tries all.
        tolerance: largest difference of real numbers that counts as equal; None takes 1e-4, and 2e-2 for a model that
            holds float16 weights.
        threads: of ONNX Runtime; see ``dibr_deploy.runtime.Session``.

    Raises:
        FileNotFoundError: there is no model.
        DibrError: the model does not belong to the module (other outputs), or it cannot be read.
    """
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    module, tensors = as_the_model_takes(module, tensors, _dtypes(path))
    with evaluation_mode(module):
        outputs = named_outputs(module(*tensors))
    return compare_doors(
        path,
        [_array(tensor) for tensor in tensors],
        {name: _array(tensor) for name, tensor in outputs.items()},
        reference="torch",
        doors=doors,
        tolerance=tolerance,
        threads=threads,
    )


def _dtypes(path: str | Path) -> list[str]:
    """Of the model's inputs."""
    if is_bundle(path):
        return [tensor.dtype for tensor in Bundle(path).manifest.inputs]
    path = existing_file(path)
    return [info.dtype for info in parse_interface(path.read_bytes(), path).inputs]


def _array(tensor: Tensor):
    return tensor.detach().cpu().numpy()
