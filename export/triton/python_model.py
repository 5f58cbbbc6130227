"""What Triton's Python backend runs. It needs numpy and onnxruntime, and nothing else: the model and the library with
its ops lie beside this file. A folder ``packages`` beside ``config.pbtxt`` is searched first, so that onnxruntime can
come with the repository:

    pip install --target REPOSITORY/MODEL/packages onnxruntime
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

MODEL, LIBRARY = "model.onnx", "libdibr_onnxruntime.so"


class TritonPythonModel:
    """One instance of the model, as Triton's Python backend wants it."""

    def initialize(self, args):
        """Open the model. ``args`` are texts: model_config (JSON), model_repository, model_version and more."""
        folder = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder.parent / "packages"))
        import onnxruntime

        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = {tensor["name"]: tensor for tensor in config["output"]}
        self.batches = config["max_batch_size"] > 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"]["threads"]["string_value"])
        if (folder / LIBRARY).exists():
            options.register_custom_ops_library(str(folder / LIBRARY))
        self.session = onnxruntime.InferenceSession(str(folder / MODEL), options, providers=_providers(args))

    def execute(self, requests):
        """One response per request, in their order. Requests that Triton hands over together run as one batch."""
        return self._together(requests) if self.batches and len(requests) > 1 else list(map(self._alone, requests))

    def _together(self, requests):
        feeds = [self._feed(request) for request in requests]
        try:
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
            values = self.session.run(list(self.outputs), joined)
        except Exception:
            # What is wrong with one request is the answer to that one alone.
            return [self._alone(request) for request in requests]
        ends = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])[:-1]
        parts = zip(*(np.split(value, ends) for value in values), strict=True)
        return [self._response(request, part) for request, part in zip(requests, parts, strict=True)]

    def _alone(self, request):
        try:
            return self._response(request, self.session.run(list(self.outputs), self._feed(request)))
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _feed(self, request):
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}

    def _response(self, request, values):
        """Of the outputs that the client asked for."""
        wanted = request.requested_output_names()
        found = zip(self.outputs.values(), values, strict=True)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(tensor["name"], self._shaped(value, tensor)) for tensor, value in found
             if tensor["name"] in wanted]
        )  # fmt: skip

    def _shaped(self, value, tensor):
        """Triton knows no tensor without dimensions: such an output has one of size 1 in the configuration."""
        rank = len(tensor["dims"]) + self.batches
        return value if value.ndim == rank else value[..., np.newaxis]


def _providers(args):
    if args["model_instance_kind"] == "GPU":
        return [("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
