"""Errors that a user can act on. The command line prints them as one sentence, without a traceback."""

from __future__ import annotations


class DibrError(ValueError):
    """Input that dibr_deploy cannot work with; the message names it, what was expected and what came."""
