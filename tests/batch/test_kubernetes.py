"""The example for KubeRay against the fields that its Go types declare, and their types."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]

# Required and other fields of KubeRay's `ray-operator/apis/ray/v1/*_types.go` that the example may
# use; `authOptions` came with KubeRay 1.5.1.
REQUIRED = {
    "job": set(),
    "cluster": {"headGroupSpec"},
    "head": {"rayStartParams", "template"},
    "workers": {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
KNOWN = {
    "job": {
        "entrypoint",
        "rayClusterSpec",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "backoffLimit",
        "activeDeadlineSeconds",
    },
    "cluster": {
        "rayVersion",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "authOptions",
        "workerGroupSpecs",
    },
    "head": {"serviceType", "headService"},
    "workers": {"replicas", "numOfHosts", "scaleStrategy"},
}

# Types of the fields that are no objects, as the same files declare them.
TYPES = {
    "entrypoint": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "serviceType": str,
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "numOfHosts": int,
}
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?)?")  # of Kubernetes


def check(kind, given):
    assert REQUIRED[kind] <= given.keys() <= REQUIRED[kind] | KNOWN[kind]
    for name, value in given.items():
        assert type(value) is TYPES.get(name, type(value)), name
    return given


def test_the_example_has_the_fields_of_a_rayjob():
    manifest = yaml.safe_load((ROOT / "examples/batch_on_kubernetes.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    job = check("job", manifest["spec"])
    cluster = check("cluster", job["rayClusterSpec"])
    groups = [
        check("head", cluster["headGroupSpec"]),
        *(check("workers", group) for group in cluster["workerGroupSpecs"]),
    ]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert {"name", "image", "resources"} <= container.keys()
        asked, allowed = container["resources"]["requests"], container["resources"]["limits"]
        assert all(QUANTITY.fullmatch(value) for value in (asked | allowed).values())
        assert asked.keys() == allowed.keys()
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert cluster["autoscalerOptions"].keys() == {"idleTimeoutSeconds"}
    assert type(cluster["autoscalerOptions"]["idleTimeoutSeconds"]) is int


def test_the_example_asks_for_the_tested_ray_and_for_options_that_exist(cli):
    manifest = yaml.safe_load((ROOT / "examples/batch_on_kubernetes.yaml").read_text())
    version = manifest["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"ray=={version}" in (ROOT / "constraints.txt").read_text().splitlines()
    words = manifest["spec"]["entrypoint"].split()
    assert words[:2] == ["maskstream", "batch"]
    _, shown, _ = cli("batch", "--help")
    options = {word for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", shown))
