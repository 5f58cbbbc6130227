"""API keys: whoever shows one of them may come in."""

from __future__ import annotations

import hmac
from collections.abc import Sequence


class Keys:
    """keys: none of them lets everyone in."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    def admit(self, authorization: str | None, api_key: str | None) -> bool:
        """Whether a request may come in; it takes the same time for every wrong key.

        authorization: "Bearer KEY", of the header (HTTP) or metadata (gRPC) of this name. api_key: of X-API-Key.
        """
        if not self._keys:
            return True
        shown = api_key or ""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            shown = token.strip()
        given = shown.encode("utf-8", "replace")
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        return any(matches)
