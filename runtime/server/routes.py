"""Routes beside the protocol's."""

from __future__ import annotations

from starlette.routing import BaseRoute

from . import openapi, page, render_route


def extra_routes() -> list[BaseRoute]:
    """In the order in which they are tried."""
    return [*render_route.routes(), *openapi.routes(), *page.routes()]
