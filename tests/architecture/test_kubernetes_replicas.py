"""The overlay k8s/replicas: valid for the API server, and several replicas on one PostgreSQL."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from app.core.config import Settings
from tests.support.kustomize import Manifest, render

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "k8s" / "replicas"
SCHEDULER, WORKER = "myscheduler", "myscheduler-worker"


def read_all(name: str) -> list[Manifest]:
    """Return the documents of one file."""
    return list(yaml.safe_load_all((OVERLAY / name).read_text(encoding="utf-8")))


def read_kustomization() -> Manifest:
    """Return the list of what belongs together."""
    (found,) = read_all("kustomization.yaml")
    return found


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    """Return what kubectl would apply."""
    return render(OVERLAY)


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the specification of one manifest."""
    (found,) = [
        manifest["spec"]
        for manifest in manifests
        if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name)
    ]
    spec: Manifest = found
    return spec


def pod_of(manifests: list[Manifest], name: str) -> Manifest:
    """Return the specification of a Deployment's pod."""
    spec: Manifest = named(manifests, "Deployment", name)["template"]["spec"]
    return spec


def container_of(manifests: list[Manifest], name: str) -> Manifest:
    """Return a pod's only container."""
    (only,) = pod_of(manifests, name)["containers"]
    found: Manifest = only
    return found


def test_every_file_is_listed() -> None:
    """A file that lies in k8s/replicas is part of what is applied, and the base is too."""
    kustomization = read_kustomization()
    listed = {*kustomization["resources"], *(patch["path"] for patch in kustomization["patches"])}
    lying = {path.name for path in OVERLAY.glob("*.yaml")} - {"kustomization.yaml"}

    assert listed == lying | {"../base"}


@pytest.mark.parametrize(
    "name", [name for name in read_kustomization()["resources"] if name.endswith(".yaml")]
)
def test_files_fit_the_schema(name: str) -> None:
    """The API server's schema accepts every manifest as written, without kubectl too."""
    for manifest in read_all(name):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_what_is_applied_fits_the_schema(manifests: list[Manifest]) -> None:
    """With its patches applied too, every manifest is one that the API server knows."""
    for manifest in manifests:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_everything_lives_in_one_namespace(manifests: list[Manifest]) -> None:
    """All of it goes into the namespace of the base."""
    found = {m["metadata"].get("namespace") for m in manifests if m["kind"] != "Namespace"}

    assert found == {"myscheduler"}


def test_nothing_is_kept_in_the_cluster(manifests: list[Manifest]) -> None:
    """No claim and no volume but scratch space is left: the data is in PostgreSQL."""
    assert [m for m in manifests if m["kind"] == "PersistentVolumeClaim"] == []
    for name in (SCHEDULER, WORKER):
        pod = pod_of(manifests, name)
        assert [(v["name"], "emptyDir" in v) for v in pod["volumes"]] == [("tmp", True)]
        (mount,) = container_of(manifests, name)["volumeMounts"]
        assert mount == {"name": "tmp", "mountPath": "/tmp"}


def test_replicas_replace_each_other_one_by_one(manifests: list[Manifest]) -> None:
    """Two schedulers or more; a rollout takes none away before its successor is ready."""
    assert named(manifests, "Deployment", SCHEDULER)["replicas"] >= 2
    for name in (SCHEDULER, WORKER):
        strategy = named(manifests, "Deployment", name)["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_the_number_of_workers_is_the_autoscalers(manifests: list[Manifest]) -> None:
    """The autoscaler keeps at least two workers, and no manifest sets their number beside it."""
    scaler = named(manifests, "HorizontalPodAutoscaler", WORKER)

    assert scaler["scaleTargetRef"]["name"] == WORKER
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert "replicas" not in named(manifests, "Deployment", WORKER)
    # A share of the processor can only be told of a request.
    assert "cpu" in container_of(manifests, WORKER)["resources"]["requests"]


@pytest.mark.parametrize(("name", "role"), [(SCHEDULER, "scheduler"), (WORKER, "worker")])
def test_roles_and_the_address_are_given(manifests: list[Manifest], name: str, role: str) -> None:
    """Each pod has its role, and its database from a Secret that is not kept in the sources."""
    given = {one["name"]: one for one in container_of(manifests, name)["env"]}

    assert given["MYSCHEDULER_ROLE"]["value"] == role
    assert given["DATABASE_URL"] == {
        "name": "DATABASE_URL",
        "valueFrom": {"secretKeyRef": {"name": "myscheduler-database", "key": "url"}},
    }
    assert given["MYSCHEDULER_DATABASE_DIRECT_URL"]["valueFrom"]["secretKeyRef"] == {
        "name": "myscheduler-database",
        "key": "direct-url",
        "optional": True,
    }
    assert [m for m in manifests if m["kind"] == "Secret"] == []


@pytest.mark.parametrize("name", [SCHEDULER, WORKER])
def test_what_is_for_a_pod_selects_it_alone(manifests: list[Manifest], name: str) -> None:
    """Deployment, budget, spread and policy of one kind of pod select that kind only."""
    deployment = named(manifests, "Deployment", name)
    wanted = {"matchLabels": {"app.kubernetes.io/name": name}}
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]

    assert deployment["template"]["metadata"]["labels"] == wanted["matchLabels"]
    assert deployment["selector"] == wanted
    assert named(manifests, "PodDisruptionBudget", name)["selector"] == wanted
    assert named(manifests, "NetworkPolicy", name)["podSelector"] == wanted
    assert [one["labelSelector"] for one in spread] == [wanted] * 2
    assert {one["topologyKey"] for one in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_a_drained_node_takes_one_at_a_time(manifests: list[Manifest]) -> None:
    """Each budget lets one pod go at a time, and a sick one always: it never blocks a drain."""
    for name in (SCHEDULER, WORKER):
        budget = named(manifests, "PodDisruptionBudget", name)
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_requests_find_a_pod_that_is_about_to_stop(manifests: list[Manifest]) -> None:
    """The API listens until the Service has forgotten it, and still has its time to stop."""
    wait = container_of(manifests, SCHEDULER)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod_of(manifests, SCHEDULER)["terminationGracePeriodSeconds"]

    assert wait >= 5
    assert grace - wait - Settings().shutdown_grace_seconds >= 10


def test_workers_are_called_by_nobody(manifests: list[Manifest]) -> None:
    """A worker takes no connection, and may make the same ones as the base's pod."""
    worker = named(manifests, "NetworkPolicy", WORKER)

    assert sorted(worker["policyTypes"]) == ["Egress", "Ingress"]
    assert worker.get("ingress", []) == []
    assert worker["egress"] == named(manifests, "NetworkPolicy", SCHEDULER)["egress"]


def test_workers_are_as_locked_down_as_the_base(manifests: list[Manifest]) -> None:
    """A worker's pod has the base's security, probes, limits and time to stop."""
    pods = [pod_of(manifests, name) for name in (SCHEDULER, WORKER)]
    containers = [container_of(manifests, name) for name in (SCHEDULER, WORKER)]
    # The base's pod owns a volume's files by its group.
    for pod in pods:
        for name in ("fsGroup", "fsGroupChangePolicy"):
            pod["securityContext"].pop(name, None)

    for key in (
        "securityContext",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
    ):
        assert pods[0][key] == pods[1][key]
    for key in (
        "securityContext",
        "envFrom",
        "image",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
    ):
        assert containers[0][key] == containers[1][key]
    assert containers[0]["resources"]["limits"] == containers[1]["resources"]["limits"]
