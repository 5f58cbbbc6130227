"""Compares the double of TensorRT with the real bindings, run as a program with the Python of .venv-trt.

    python real_bindings.py FLAVOUR < question.json    # prints what is not as in the double, one line of JSON

FLAVOUR is rtx or lean. The real signatures are those that pybind11 writes into docstrings.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import Any

BINDINGS = {"rtx": "tensorrt_rtx_bindings", "lean": "tensorrt_lean_bindings"}
ACCEPTED = {
    "int": ("SupportsInt", "int"),
    "str": ("str",),
    "bytes": ("Buffer",),
    "tuple": ("tuple",),
    "ILogger": ("ILogger",),
}
"""By the kind of an argument: what a signature calls a parameter that takes it."""
SIGNATURE = re.compile(r"\w+\((?P<parameters>.*)\) -> ")
PARAMETER = re.compile(r"(\w+): (.+?)( = .+?)?(?=, \w+: |$)")


def kind_of(value: Any) -> str:
    """Of an argument: the name of its type, or of the TensorRT class that it is derived from."""
    names = [one.__name__ for one in type(value).__mro__]
    return next((name for name in names if name in ACCEPTED), names[0])


def signatures(method: Any) -> list[list[tuple[str, bool]]]:
    """For each overload the type of every parameter but self, and whether it has a default."""
    lines = [re.sub(r"^\d+\. ", "", line) for line in (method.__doc__ or "").splitlines()]
    found = [SIGNATURE.match(line) for line in lines]
    return [
        [(kind, bool(default)) for _, kind, default in PARAMETER.findall(match["parameters"])][1:]
        for match in found
        if match and "*args" not in match["parameters"]
    ]


def accepts(method: Any, kinds: list[str]) -> bool:
    for parameters in signatures(method):
        required = [kind for kind, has_default in parameters if not has_default]
        pairs = zip(kinds, parameters, strict=False)
        if len(required) <= len(kinds) <= len(parameters) and all(
            any(accepted in type_name for accepted in ACCEPTED.get(kind, ())) for kind, (type_name, _) in pairs
        ):
            return True
    return False


def differences(trt: Any, question: dict[str, Any]) -> list[str]:
    found = []
    for kind, names in question["names"].items():
        found += [f"{kind}.{name} does not exist" for name in names if not hasattr(getattr(trt, kind), name)]
    for kind, members in question["members"].items():
        known = getattr(trt, kind).__members__
        found += [f"{kind} has no member {name}" for name in members if name not in known]
    for kind, name, kinds in question["calls"]:
        if not accepts(getattr(getattr(trt, kind), name), kinds):
            found.append(f"{kind}.{name} does not take {kinds}")
    for name in ("__version__", "get_plugin_registry"):
        found += [] if hasattr(trt, name) else [f"{name} does not exist"]
    return found


if __name__ == "__main__":
    print(json.dumps(differences(importlib.import_module(BINDINGS[sys.argv[1]]), json.load(sys.stdin))))
