"""What deploys the system is well formed, names what exists, and holds no secret: by the tools made for each format."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.conftest import REPOSITORY

BIN = Path(sys.executable).parent
COMPOSE = REPOSITORY / "docker-compose.yml"
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
MANIFESTS = sorted(path for path in KUBERNETES.glob("*/*.yaml") if path.name != "kustomization.yaml")
DOCUMENTED = set(re.findall(r"`(INSIGHT_\w+)`", (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")))


def tool(*command: str | Path) -> None:
    done = subprocess.run(
        [str(BIN / str(command[0])), *map(str, command[1:])], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, object]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


@pytest.mark.skipif(sys.platform != "linux", reason="hadolint comes for Linux")
def test_the_dockerfile_follows_hadolint_s_rules() -> None:
    tool("hadolint", REPOSITORY / "Dockerfile")


def test_the_compose_file_follows_its_specification() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_every_variable_of_the_compose_file_is_explained_or_has_a_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    explained = (REPOSITORY / "deploy" / "compose" / "example.env").read_text(encoding="utf-8")

    without_default = {name for name, rest in re.findall(r"\$\{(\w+)(:-)?", text) if not rest}

    assert without_default
    assert {name for name in without_default if f"{name}=" not in explained} == set()


def test_what_the_compose_file_mounts_is_there() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].values()
    mounted = {str(volume).split(":")[0] for service in services for volume in service.get("volumes", ())}

    files = {name for name in mounted if name.startswith("./")}

    assert files
    assert {name for name in files if not (REPOSITORY / name).exists()} == set()


def test_no_port_of_the_compose_file_faces_the_network() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].values()
    ports = [port for service in services for port in service.get("ports", ())]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_follows_github_s_schema(workflow: Path) -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)


def test_no_workflow_can_be_abused_in_a_way_that_zizmor_knows() -> None:
    tool("zizmor", "--offline", "--no-progress", "--config", REPOSITORY / ".github" / "zizmor.yml", *WORKFLOWS)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_manifest_follows_the_schema_of_kubernetes(manifest: Path) -> None:
    found = documents(manifest)

    assert found
    for document in found:
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize("folder", ["api", "blue", "green", "shared"])
def test_a_kustomization_names_all_that_lies_beside_it(folder: str) -> None:
    home = KUBERNETES / folder
    (kustomization,) = documents(home / "kustomization.yaml")

    named = kustomization["resources"]

    assert isinstance(named, list)
    assert all((home / name).exists() for name in named)
    assert {path.name for path in home.glob("*.yaml")} - {"kustomization.yaml"} <= set(named)


def test_every_setting_that_is_deployed_is_a_documented_one() -> None:
    deployed = set()
    for path in (COMPOSE, REPOSITORY / "Dockerfile", *MANIFESTS):
        deployed |= set(re.findall(r"^\s*(INSIGHT_\w+)[:=]", path.read_text(encoding="utf-8"), re.MULTILINE))

    assert len(deployed) > 5
    assert deployed - DOCUMENTED == set()


def pod_of(document: dict[str, object]) -> dict[str, object]:
    """The pod that a Deployment or a CronJob makes."""
    spec: dict[str, object] = document["spec"]  # type: ignore[assignment] # YAML has no types
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]  # type: ignore[index,assignment]
    return spec["template"]["spec"]  # type: ignore[index,no-any-return]


def test_no_container_runs_as_root_writes_to_its_image_or_gains_rights() -> None:
    pods = [
        pod_of(document)
        for path in MANIFESTS
        for document in documents(path)
        if document["kind"] in ("Deployment", "CronJob")
    ]

    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True  # type: ignore[index]
        for container in pod["containers"]:  # type: ignore[attr-defined]
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False


CLUSTER = """#!/usr/bin/env bash
# Stands for a cluster: keeps which slot is live in a file, and writes down what it is asked.
echo "$*" >> "$CLUSTER/asked"
case "$*" in
  *"get service"*) cat "$CLUSTER/live" ;;
  "kustomize "*) echo "image: marketing-insight" ;;
  *apply*) cat > "$CLUSTER/applied" ;;
  *"rollout status"*) [[ ! -e "$CLUSTER/broken" ]] ;;
  *"patch service"*) [[ "$*" =~ slot\\":\\ \\"([a-z]+) ]] && printf %s "${BASH_REMATCH[1]}" > "$CLUSTER/live" ;;
esac
"""


class Cluster:
    """A `kubectl` that does nothing but remember."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "kubectl").write_text(CLUSTER)
        (folder / "kubectl").chmod(0o755)
        (folder / "live").write_text("blue")

    def release(self, *words: str) -> int:
        env = os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}", "CLUSTER": str(self.folder)}
        return subprocess.run([KUBERNETES / "release.sh", *words], env=env, check=False, capture_output=True).returncode

    @property
    def live(self) -> str:
        return (self.folder / "live").read_text()


def test_a_release_goes_to_the_idle_slot_and_gets_the_traffic_once_it_is_ready(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)

    assert cluster.release("deploy", "registry.test/insight@sha256:1") == 0

    assert cluster.live == "green"
    assert (tmp_path / "applied").read_text() == "image: registry.test/insight@sha256:1\n"
    asked = (tmp_path / "asked").read_text()
    assert asked.index("rollout status deployment/insight-api-green") < asked.index("patch service")


def test_a_release_that_does_not_get_ready_gets_no_traffic(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    (tmp_path / "broken").touch()

    assert cluster.release("deploy", "registry.test/insight@sha256:1") != 0
    assert cluster.live == "blue"


def test_a_rollback_goes_back_to_the_slot_before(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.release("deploy", "registry.test/insight@sha256:1")

    assert cluster.release("rollback") == 0
    assert cluster.live == "blue"


def test_a_release_without_an_image_changes_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)

    assert cluster.release("deploy") != 0
    assert cluster.release("nonsense") == 2
    assert cluster.live == "blue"
