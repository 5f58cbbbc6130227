"""The inference service: the Open Inference Protocol v2 over HTTP and gRPC, in front of ``Session``.

``dibr serve`` runs it; ``docs/serving.md`` describes it. It needs the extra ``[serve]``.
"""
