"""The overlay k8s/replicas-keda: k8s/replicas, with workers by the depth of the queue.

No schema of KEDA's kinds is on this machine, so their fields are compared with KEDA's definitions
(keda.sh/v1alpha1: config/crd/bases in kedacore/keda) as they are written down here. What its
statement counts is tested in ``tests/integration/postgres/test_queue_depth.py``.
"""

from typing import Any

import pytest
import yaml

from app.core.config import Settings
from tests.support.kustomize import Manifest, render
from tests.support.queue_depth import FOLDER, read_trigger

REPLICAS = FOLDER.parent / "replicas"
WORKER = "myscheduler-worker"
# The fields that may stand there, of those that KEDA knows.
SCALED_OBJECT = {
    "scaleTargetRef": {"apiVersion", "kind", "name"},
    "minReplicaCount": int,
    "maxReplicaCount": int,
    "pollingInterval": int,
    "advanced": {"horizontalPodAutoscalerConfig"},
    "triggers": list,
}
TRIGGER = {"type", "metricType", "metadata", "authenticationRef"}
METADATA = {"postgresql": {"query", "targetQueryValue"}, "cpu": {"value"}}
TARGET_TYPES = {"postgresql": "AverageValue", "cpu": "Utilization"}


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    """Return what kubectl would apply."""
    return render(FOLDER)


def read(kind: str) -> Manifest:
    """Return the only manifest of this kind, as written."""
    text = (FOLDER / "queue-depth.yaml").read_text(encoding="utf-8")
    (found,) = [one for one in yaml.safe_load_all(text) if one["kind"] == kind]
    manifest: Manifest = found
    return manifest


def identity(manifest: Manifest) -> tuple[str, str]:
    """Tell which manifest this is."""
    return manifest["kind"], manifest["metadata"]["name"]


def test_all_else_is_as_without_keda(manifests: list[Manifest]) -> None:
    """What is applied is k8s/replicas, but for the workers' autoscaler, which KEDA's replaces."""
    plain = {identity(one): one for one in render(REPLICAS)}
    found = {identity(one): one for one in manifests}
    ours = {("ScaledObject", WORKER), ("TriggerAuthentication", "myscheduler-database")}

    assert plain.keys() - found.keys() == {("HorizontalPodAutoscaler", WORKER)}
    assert found.keys() - plain.keys() == ours
    assert [key for key in plain.keys() & found.keys() if plain[key] != found[key]] == []
    assert {found[key]["metadata"]["namespace"] for key in ours} == {"myscheduler"}


def test_fields_are_ones_that_keda_knows() -> None:
    """Kinds, fields and types are those of KEDA's definitions; parameters of triggers are text."""
    scaled = read("ScaledObject")
    spec = scaled["spec"]

    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert set(spec) <= set(SCALED_OBJECT)
    for name, value in spec.items():
        wanted: Any = SCALED_OBJECT[name]
        assert isinstance(value, wanted) if isinstance(wanted, type) else set(value) <= wanted
    for trigger in spec["triggers"]:
        assert set(trigger) <= TRIGGER
        assert trigger["metricType"] == TARGET_TYPES[trigger["type"]]
        assert set(trigger["metadata"]) == METADATA[trigger["type"]]
        assert {type(value) for value in trigger["metadata"].values()} == {str}


def test_the_workers_are_scaled_within_the_same_bounds() -> None:
    """KEDA scales the workers, between the same numbers and at the pace of what it replaces."""
    text = (REPLICAS / "autoscaler.yaml").read_text(encoding="utf-8")
    (plain,) = [
        one["spec"] for one in yaml.safe_load_all(text) if one["metadata"]["name"] == WORKER
    ]
    spec = read("ScaledObject")["spec"]

    assert spec["scaleTargetRef"] == plain["scaleTargetRef"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (
        plain["minReplicas"],
        plain["maxReplicas"],
    )
    assert spec["advanced"]["horizontalPodAutoscalerConfig"] == {"behavior": plain["behavior"]}
    (cpu,) = [one for one in spec["triggers"] if one["type"] == "cpu"]
    (metric,) = plain["metrics"]
    assert cpu["metadata"]["value"] == str(metric["resource"]["target"]["averageUtilization"])


def test_a_worker_is_added_before_the_others_are_full() -> None:
    """The depth for each worker is less than what one sends at once, as its settings have it."""
    target = int(read_trigger()["metadata"]["targetQueryValue"])

    assert target == Settings().concurrency // 2


def test_keda_has_the_address_of_the_secret() -> None:
    """The address comes from the Secret that the pods have it from, by KEDA's own parameter."""
    authentication = read("TriggerAuthentication")

    assert authentication["apiVersion"] == "keda.sh/v1alpha1"
    assert read_trigger()["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert authentication["spec"] == {
        "secretTargetRef": [
            {"parameter": "connection", "name": "myscheduler-database", "key": "url"}
        ]
    }
