"""The cluster's files agree with each other, with the versions we test and with what Ray accepts."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from composing import compose_tinytrain
from pages import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
KUBERAY = ("kuberay-cluster.yaml", "kuberay-job.yaml")


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


def ray_specs(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return (cluster specification, whole document) of every Ray resource in a manifest."""
    documents = list(yaml.safe_load_all((CLUSTER / name).read_text()))
    rays = [document for document in documents if document["apiVersion"] == "ray.io/v1"]
    assert rays
    return [(found["spec"].get("rayClusterSpec", found["spec"]), found) for found in rays]


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_image_has_our_python_and_no_superuser() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines if line and not line.startswith(("#", " "))]
    base = next(line[1] for line in words if line[0] == "FROM")
    tested = re.search(r"\(Python ([\d.]+),", (REPOSITORY / "constraints.txt").read_text())
    assert tested and base.startswith(f"python:{tested[1]}-")
    assert f'requires-python = ">={tested[1]}"' in (REPOSITORY / "pyproject.toml").read_text()
    users = [line[1] for line in words if line[0] == "USER"]
    assert users[-1].isdigit() and int(users[-1]) > 0
    installs = [line for line in words if line[:3] == ["RUN", "pip", "install"]]
    assert len(installs) == 2 and all("constraints.txt" in line for line in installs)
    for line in (line for line in words if line[0] == "COPY"):
        assert all((REPOSITORY / name).exists() for name in line[1:-1]), line
    command = json.loads(next(" ".join(line[1:]) for line in words if line[0] == "CMD"))
    assert command[0] == "tinytrain"
    compose_tinytrain(command[1:])


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_manifests(name: str) -> None:
    for spec, document in ray_specs(name):
        assert document["kind"] == ("RayJob" if "job" in name else "RayCluster")
        assert spec["rayVersion"] == pinned("ray")
        assert spec["authOptions"] == {"mode": "token"}
        names = set()
        for pod in pods(spec):
            assert pod["securityContext"]["runAsNonRoot"]
            (container,) = pod["containers"]
            names.add(container["image"])
            assert container["resources"]["requests"] == container["resources"]["limits"]
            mounted = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == mounted
            assert {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]} == {"tinytrain-results"}
        assert len(names) == 1 and not names.pop().endswith(":latest")
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # KubeRay takes strings


def test_both_manifests_use_one_image() -> None:
    images = {pod["containers"][0]["image"] for name in KUBERAY for spec, _ in ray_specs(name) for pod in pods(spec)}
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and images == {f"registry.example.com/tinytrain:{version[1]}"}


def test_the_job_is_one_we_have_and_writes_to_the_volume(folder: Path) -> None:
    ((spec, document),) = ray_specs("kuberay-job.yaml")
    program, script, *words = document["spec"]["entrypoint"].split()
    assert program == "python" and (REPOSITORY / "jobs" / Path(script).name).is_file()
    assert Path(script).parts[:3] == ("/", "opt", "tinytrain")  # where the Dockerfile puts it
    compose_tinytrain([Path(script).stem, *words])
    (mount,) = pods(spec)[0]["containers"][0]["volumeMounts"]
    assert f"run.root={mount['mountPath']}" in words


def test_the_launcher_file_is_what_ray_up_accepts() -> None:
    found = yaml.safe_load((CLUSTER / "launcher.yaml").read_text())
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(found, schema)
    starts = [line for key in ("head", "worker") for line in found[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in line for line in starts)
    source = (Path(spec.origin).parent / "scripts" / "scripts.py").read_text()
    for option in re.findall(r"--[\w-]+", " ".join(starts)):
        assert f'"{option}"' in source, option
    assert all("constraints.txt" in line for line in found["setup_commands"] if "pip install" in line)


def test_the_runtime_environment_has_keys_ray_knows_and_no_secret() -> None:
    found = yaml.safe_load((CLUSTER / "runtime-env.yaml").read_text())
    assert set(found) <= {"env_vars", "excludes", "config", "working_dir", "py_modules", "pip"}
    assert all(isinstance(value, str) for value in found["env_vars"].values())
    assert not [name for name in found["env_vars"] if re.search("key|token|secret|passw", name, re.IGNORECASE)]
