"""The overlay k8s/replicas: valid for the API server, and several replicas on one PostgreSQL."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from app.core.config import Settings
from tests.support.kustomize import Manifest, render

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "k8s" / "replicas"
DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment"}
API, SCHEDULER, WORKER = NAMES = "myscheduler", "myscheduler-scheduler", "myscheduler-worker"


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
    for name in NAMES:
        pod = pod_of(manifests, name)
        assert [(v["name"], "emptyDir" in v) for v in pod["volumes"]] == [("tmp", True)]
        (mount,) = container_of(manifests, name)["volumeMounts"]
        assert mount == {"name": "tmp", "mountPath": "/tmp"}


def test_replicas_replace_each_other_one_by_one(manifests: list[Manifest]) -> None:
    """A rollout takes none away before its successor is ready."""
    for name in NAMES:
        strategy = named(manifests, "Deployment", name)["strategy"]
        assert strategy["type"] == "RollingUpdate"
        assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_one_scheduler_leads_and_one_stands_by(manifests: list[Manifest]) -> None:
    """There are two schedulers, whatever there is to do: only one of them leads."""
    scaled = [m["metadata"]["name"] for m in manifests if m["kind"] == "HorizontalPodAutoscaler"]

    assert named(manifests, "Deployment", SCHEDULER)["replicas"] == 2
    assert SCHEDULER not in scaled


@pytest.mark.parametrize("name", [API, WORKER])
def test_numbers_are_the_autoscalers(manifests: list[Manifest], name: str) -> None:
    """An autoscaler by processor keeps at least two, and no manifest sets a number beside it."""
    scaler = named(manifests, "HorizontalPodAutoscaler", name)

    assert scaler["scaleTargetRef"] == DEPLOYMENT | {"name": name}
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert [one["resource"]["name"] for one in scaler["metrics"]] == ["cpu"]
    assert "replicas" not in named(manifests, "Deployment", name)
    # A share of the processor can only be told of a request.
    assert "cpu" in container_of(manifests, name)["resources"]["requests"]


def test_the_service_leads_to_the_api(manifests: list[Manifest]) -> None:
    """Requests go to pods of the API, and to no scheduler or worker."""
    assert named(manifests, "Service", "myscheduler")["selector"] == {"app.kubernetes.io/name": API}


def test_the_connections_that_are_named_suffice(manifests: list[Manifest]) -> None:
    """The page of the autoscalers counts the most pods there can be, ten connections each."""
    most = [
        named(manifests, "HorizontalPodAutoscaler", name)["maxReplicas"] for name in (API, WORKER)
    ]
    pods = sum(most) + named(manifests, "Deployment", SCHEDULER)["replicas"]
    surge = [
        named(manifests, "Deployment", name)["strategy"]["rollingUpdate"]["maxSurge"]
        for name in NAMES
    ]

    page = (OVERLAY / "autoscaler.yaml").read_text(encoding="utf-8")
    assert f"take {10 * (pods + sum(surge))}:" in page


@pytest.mark.parametrize(
    ("name", "role"), [(API, "api"), (SCHEDULER, "scheduler"), (WORKER, "worker")]
)
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


@pytest.mark.parametrize("name", NAMES)
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
    for name in NAMES:
        budget = named(manifests, "PodDisruptionBudget", name)
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_requests_find_a_pod_that_is_about_to_stop(manifests: list[Manifest]) -> None:
    """The API listens until the Service has forgotten it, and still has its time to stop."""
    wait = container_of(manifests, API)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod_of(manifests, API)["terminationGracePeriodSeconds"]

    assert wait >= 5
    assert grace - wait - Settings().shutdown_grace_seconds >= 10


@pytest.mark.parametrize("name", [SCHEDULER, WORKER])
def test_what_is_not_the_api_is_called_by_nobody(manifests: list[Manifest], name: str) -> None:
    """A scheduler or worker takes no connection, and may make the same ones as the base's pod."""
    policy = named(manifests, "NetworkPolicy", name)

    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert policy.get("ingress", []) == []
    assert policy["egress"] == named(manifests, "NetworkPolicy", API)["egress"]


@pytest.mark.parametrize("name", [SCHEDULER, WORKER])
def test_pods_are_as_locked_down_as_the_base(manifests: list[Manifest], name: str) -> None:
    """A scheduler's or worker's pod has the base's security, probes, limits and time to stop."""
    pods = [pod_of(manifests, one) for one in (API, name)]
    containers = [container_of(manifests, one) for one in (API, name)]
    # The base's pod owns a volume's files by its group.
    locks = [dict(pod["securityContext"]) for pod in pods]
    for key in ("fsGroup", "fsGroupChangePolicy"):
        locks[0].pop(key)

    assert locks[0] == locks[1]
    for key in (
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
        "ports",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
    ):
        assert containers[0][key] == containers[1][key]
    assert containers[0]["resources"]["limits"] == containers[1]["resources"]["limits"]
