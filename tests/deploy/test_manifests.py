"""The manifests under deploy/, against the schemas of Kubernetes and KServe and the programs that they start."""

from __future__ import annotations

import ast
import copy
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from absent import missing
from cuda_backend.host_build import ROOT
from kubernetes_validate.utils import schema_contents

from dibr_deploy.cli import build_parser
from dibr_deploy.runtime.server.lifecycle import AFTER_SHUTDOWN_TIMEOUT

DEPLOY = ROOT / "deploy"
OLDEST, NEWEST = "1.28.0", kubernetes_validate.latest_version()
KSERVE_GROUP = "serving.kserve.io/"
TRITON = ROOT / ".venv-triton"


def resources(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(name: str, kind: str) -> dict[str, Any]:
    [found] = [one for one in resources(name) if one["kind"] == kind]
    return found


KUBERNETES = ("kubernetes/serve.yaml", "kubernetes/triton.yaml")
KSERVE = ("kserve/serve.yaml", "kserve/triton.yaml")


def test_every_manifest_is_tested() -> None:
    assert {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*.yaml")} == {*KUBERNETES, *KSERVE}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_takes_it(name: str, version: str) -> None:
    """Every field is one that Kubernetes knows, of its type."""
    for resource in resources(name):
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_wrong_field_is_found() -> None:
    resource = copy.deepcopy(of_kind("kubernetes/serve.yaml", "Deployment"))
    resource["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(resource, NEWEST, strict=True)


class KServeTypes:
    """KServe's resources, as the classes that are generated from its OpenAPI definitions describe them. They are read,
    not imported: the package asks for much more than is installed."""

    def __init__(self) -> None:
        found = list(TRITON.glob("lib/python*/site-packages/kserve/models"))
        if not found:
            missing("KServe's types are not installed: `make setup-triton`")
        self._types: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        for path in found[0].glob("v1*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    self._types[node.name] = tuple(_literals(node))  # type: ignore[assignment]
        self._definitions = schema_contents(f"kubernetes-json-schema/v{NEWEST}-local-strict/_definitions.json", NEWEST)

    def check(self, value: Any, kind: str, where: str = "") -> None:
        """Raises AssertionError or jsonschema's error where a field is unknown or of another type."""
        if kind.startswith("list["):
            assert isinstance(value, list), f"{where} must be a list"
            for index, part in enumerate(value):
                self.check(part, kind[5:-1], f"{where}[{index}]")
        elif kind.startswith("dict("):
            assert isinstance(value, Mapping), f"{where} must be a map"
            for name, part in value.items():
                self.check(part, kind[5:-1].split(", ")[1], f"{where}.{name}")
        elif kind in self._types:
            types, names = self._types[kind]
            fields = {names[name]: types[name] for name in types}
            unknown = set(value) - set(fields)
            assert not unknown, f"{where or kind}: KServe knows no {unknown}"
            for name, part in value.items():
                self.check(part, fields[name], f"{where}.{name}")
        elif kind == "V1ObjectMeta":
            self._check_definition(value, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        elif kind.startswith("V1"):
            self._check_definition(value, f"io.k8s.api.core.v1.{kind[2:]}")
        else:
            python = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}[kind]
            assert isinstance(value, python), f"{where} must be {kind}"

    def _check_definition(self, value: Any, name: str) -> None:
        jsonschema.Draft202012Validator({**self._definitions, "$ref": f"#/$defs/{name}"}).validate(value)


def _literals(node: ast.ClassDef) -> Iterator[dict[str, str]]:
    values = {
        target.id: statement.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for name in ("openapi_types", "attribute_map"):
        yield ast.literal_eval(values[name])


@pytest.fixture(scope="module")
def kserve() -> KServeTypes:
    return KServeTypes()


def kind_of(resource: Mapping[str, Any]) -> str:
    """V1beta1InferenceService for kind InferenceService of serving.kserve.io/v1beta1."""
    group, _, version = resource["apiVersion"].partition("/")
    assert f"{group}/" == KSERVE_GROUP
    return version.capitalize() + resource["kind"]


@pytest.mark.parametrize("name", KSERVE)
def test_kserve_takes_it(kserve: KServeTypes, name: str) -> None:
    for resource in resources(name):
        kserve.check(resource, kind_of(resource))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "containers", 0, "imagePullPolicies"), "Always"),
        (("spec", "protocolVersion"), ["v2"]),
        (("spec", "containers", 0, "args"), "not a list"),
        (("metadata", "nam"), "x"),
    ],
)
def test_a_wrong_field_of_kserve_is_found(kserve: KServeTypes, place: tuple[str | int, ...], value: Any) -> None:
    resource = copy.deepcopy(of_kind("kserve/serve.yaml", "ServingRuntime"))
    parent: Any = resource
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    with pytest.raises((AssertionError, jsonschema.ValidationError)):
        kserve.check(resource, kind_of(resource))


def container(name: str) -> dict[str, Any]:
    if name in KSERVE:
        [found] = of_kind(name, "ServingRuntime")["spec"]["containers"]
    else:
        [found] = of_kind(name, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("name", KUBERNETES)
def test_the_parts_belong_together(name: str) -> None:
    """Selectors find the pods, ports have names that are there, and the autoscaler scales this Deployment."""
    deployment = of_kind(name, "Deployment")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    service = of_kind(name, "Service")
    assert service["spec"]["selector"] == labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    assert of_kind(name, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    target = of_kind(name, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert pod["metadata"]["annotations"]["prometheus.io/port"] in map(str, ports.values())
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(name)[probe]["httpGet"]["port"] in ports
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == volumes
    assert container(name)["resources"]["requests"]["cpu"], "the autoscaler's percentage is of this"


@pytest.mark.parametrize("name", KSERVE)
def test_the_inference_service_uses_its_runtime(name: str) -> None:
    runtime, service = of_kind(name, "ServingRuntime"), of_kind(name, "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = [{"name": one["name"], "version": one["version"]} for one in runtime["spec"]["supportedModelFormats"]]
    assert model["modelFormat"] in formats
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert container(name)["ports"][0]["containerPort"] == 8080


@pytest.mark.parametrize("name", ["kubernetes/serve.yaml", "kserve/serve.yaml"])
def test_dibr_serve_takes_the_arguments(name: str) -> None:
    """With the image's entry point before them; requests that are accepted have time to end."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    [entry] = [yaml.safe_load(line.partition(" ")[2]) for line in lines if line.startswith("ENTRYPOINT")]
    assert entry[0] == "dibr"
    parsed = build_parser().parse_args([*entry[1:], *container(name)["args"]])
    assert parsed.host == "0.0.0.0"
    uploads = 2 * parsed.max_connections * (2 * parsed.max_request + 1)
    assert uploads <= 0.6 * 1024 * float(container(name)["resources"]["limits"]["memory"].removesuffix("Gi"))
    ports = {port["containerPort"] for port in container(name)["ports"]}
    assert parsed.http_port in ports
    seconds = 0
    if name in KUBERNETES:
        assert parsed.grpc_port in ports
        seconds = int(container(name)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert grace_period(name) > seconds + parsed.shutdown_timeout + AFTER_SHUTDOWN_TIMEOUT


def grace_period(name: str) -> int:
    """Seconds between a pod's SIGTERM and its SIGKILL."""
    if name in KSERVE:
        return int(of_kind(name, "InferenceService")["spec"]["predictor"]["terminationGracePeriodSeconds"])
    return int(of_kind(name, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])


@pytest.mark.parametrize("name", ["kubernetes/triton.yaml", "kserve/triton.yaml"])
def test_triton_takes_the_arguments(name: str) -> None:
    """The real server knows every flag."""
    server = TRITON / "bin" / "tritonserver"
    if not server.exists():
        missing("Triton is not installed: `make setup-triton`")
    known = subprocess.run([str(server), "--help"], capture_output=True, text=True)
    arguments = [part for part in container(name)["args"] if part.startswith("--")]
    assert arguments
    for flag in (argument.partition("=")[0] for argument in arguments):
        assert re.search(rf"^\s*{flag}\b", known.stdout + known.stderr, re.MULTILINE), flag
    [seconds] = [argument.partition("=")[2] for argument in arguments if argument.startswith("--exit-timeout-secs=")]
    assert grace_period(name) > int(seconds)


def test_the_image_installs_what_there_is() -> None:
    """The extras of the Dockerfile are those of the package, and it takes the wheel from where it put it."""
    text = (DEPLOY / "Dockerfile").read_text()
    extras = re.search(r"\*\.whl\)\[([\w,]+)\]", text)
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text()
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    assert "--wheel-dir /wheels" in text
    assert "source=/wheels" in text


def test_images_are_named_as_they_are_built() -> None:
    """By the commands in the README and in the Dockerfiles, with this package's version."""
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    built = set()
    for path in DEPLOY.glob("*Dockerfile"):
        [command] = re.findall(r"`(docker build [^`]+)`", path.read_text())
        words = shlex.split(command)
        built.add(words[words.index("-t") + 1])
        assert (ROOT / words[words.index("-f") + 1]).is_file()
    assert built == {f"dibr-serve:{version[1]}", f"dibr-triton:{version[1]}"}
    assert {container(name)["image"] for name in (*KUBERNETES, *KSERVE)} == built
