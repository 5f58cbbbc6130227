"""The protocol's gRPC messages.

They live in a descriptor pool of their own, so that a process may also load another package's copy of the same
protocol, such as tritonclient's: protobuf's default pool takes each message name once.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"


def _load() -> dict[str, Any]:
    """Message classes by name, without the package's."""
    described = descriptor_pb2.FileDescriptorSet()
    described.ParseFromString(files(__package__).joinpath("open_inference.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{message.name}"))
        for file in described.file
        for message in file.message_type
    }


MESSAGES = _load()
