"""How a service is set up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dibr_deploy.errors import DibrError

Port = Annotated[int, Field(ge=0, le=65535)]
"""0 takes a free one."""
Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Time = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
"""Seconds, some of them: no system waits for ever."""
MiB = 1 << 20


class Settings(BaseModel):
    """Everything that ``dibr serve`` can be told, except for the models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen at; "0.0.0.0" for all of the machine's."""
    http_port: Port = 8000
    grpc_port: Port | None = 8001
    """None opens no gRPC port."""

    provider: str = "auto"
    """See ``Session``."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Of one operator on the CPU; None lets ONNX Runtime take one per core."""
    instances: Annotated[int, Field(ge=1, le=64)] = 1
    """How many batches of one model run at the same time."""

    max_batch: Annotated[int, Field(ge=1)] = 8
    """Most images in one run of a model; 1 turns dynamic batching off. A request of more is refused."""
    max_delay: Seconds = 0.0
    """Seconds that a request waits for others to fill its batch. With 0 a batch is what came while the last one ran."""
    queue_limit: Annotated[int, Field(ge=1)] = 64
    """Requests of one model that may wait; the next one is refused."""
    timeout: Time = 30.0
    """Seconds from the end of its upload to a request's answer, the wait for others' long JSON included, unless the
    request asks for less."""

    max_request: Annotated[int, Field(ge=1024, le=2000 * MiB)] = 64 * MiB
    """Bytes of a request's body, also after decompression."""
    max_json: Annotated[int, Field(ge=1024, le=2000 * MiB)] = 4 * MiB
    """Bytes of the JSON of an HTTP request, or of a message of gRPC, without its raw tensors. As objects they take up
    to 45 times as much, one request at a time."""
    max_pixels: Annotated[int, Field(ge=1)] = 1 << 24
    """Of an image that is sent as a file."""
    upload_timeout: Time = 30.0
    """Seconds that an HTTP request's head may take to come, its body, and each message of a gRPC call."""
    max_connections: Annotated[int, Field(ge=1)] = 512
    """HTTP connections and requests, and gRPC calls, at the same time."""
    shutdown_timeout: Seconds = 30.0
    """Seconds that accepted requests have to finish after SIGTERM."""

    api_keys: tuple[Annotated[str, Field(min_length=16, max_length=512, pattern="^[ -~]+$")], ...] = ()
    """Any of which a request must show; none lets everyone in. ASCII, as all of a header is."""
    tls_certificate: Path | None = None
    """PEM file with the certificate and its chain, for both protocols."""
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _pairs(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        for path in filter(None, (self.tls_certificate, self.tls_key)):
            if not path.is_file():
                raise ValueError(f"{path} does not exist")
        return self


def settings_of(**values: object) -> Settings:
    """Settings, or a DibrError that names the first value that cannot be."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"][:1])
        raise DibrError(f"{place}: {problem['msg']}" if place else problem["msg"]) from None
