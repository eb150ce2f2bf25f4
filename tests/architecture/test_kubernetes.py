"""The manifests of k8s/base: valid for the API server, and as locked down as the documents say."""

import ipaddress
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support.kustomize import Manifest, render

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"


def read_kustomization() -> Manifest:
    """Return the list of what belongs together."""
    loaded: Manifest = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    return loaded


def read_settings() -> dict[str, str]:
    """Return the settings that the ConfigMap is made of."""
    lines = (BASE / "settings.env").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return dict(pairs)


def assemble() -> list[Manifest]:
    """Return what the listed files hold, for machines without kubectl."""
    documents = [
        document
        for name in read_kustomization()["resources"]
        for document in yaml.safe_load_all((BASE / name).read_text(encoding="utf-8"))
    ]
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "myscheduler"},
        "data": read_settings(),
    }
    return [*documents, settings]


@pytest.fixture(params=["files", "kubectl"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Return all manifests, as written and as kubectl makes them."""
    return assemble() if request.param == "files" else render(BASE)


@pytest.fixture
def pod(manifests: list[Manifest]) -> Manifest:
    """Return the specification of the pod."""
    spec: Manifest = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    """Return the pod's only container."""
    (only,) = pod["containers"]
    found: Manifest = only
    return found


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the only manifest of this kind."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def test_every_manifest_is_listed() -> None:
    """A file that lies in k8s/base is part of what is applied."""
    lying = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}

    assert lying == set(read_kustomization()["resources"])


def test_manifests_fit_the_schema(manifests: list[Manifest]) -> None:
    """The API server's schema accepts every manifest and knows every field in it."""
    version = kubernetes_validate.latest_version()

    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_noticed() -> None:
    """The strict schema refuses a field that it does not know."""
    deployment = one(assemble(), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["livenesProbe"] = container.pop("livenessProbe")

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


def test_everything_lives_in_the_restricted_namespace() -> None:
    """What kubectl applies goes into one namespace, which enforces the restricted profile."""
    manifests = render(BASE)
    namespace = one(manifests, "Namespace")["metadata"]
    others = {
        manifest["metadata"].get("namespace")
        for manifest in manifests
        if manifest["kind"] != "Namespace"
    }

    assert others == {namespace["name"]}
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_changed_setting_restarts_the_pod() -> None:
    """The pod refers to its settings by a name that carries their hash."""
    manifests = render(BASE)
    name = one(manifests, "ConfigMap")["metadata"]["name"]
    spec = one(manifests, "Deployment")["spec"]["template"]["spec"]

    assert name != "myscheduler"
    assert spec["containers"][0]["envFrom"] == [{"configMapRef": {"name": name}}]


def test_one_pod_owns_the_data(manifests: list[Manifest], pod: Manifest) -> None:
    """Never two pods at once on the SQLite file, and the file is on the claimed volume."""
    deployment = one(manifests, "Deployment")["spec"]
    claim = one(manifests, "PersistentVolumeClaim")
    (data,) = [volume for volume in pod["volumes"] if volume["name"] == "data"]

    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert data["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_the_pod_runs_without_privilege(pod: Manifest, container: Manifest) -> None:
    """No root, no new privilege, no capability, no writable root, only the usual system calls."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_pod_shares_nothing_with_its_node(pod: Manifest) -> None:
    """The pod has no namespace and no directory of its node."""
    assert not [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_the_pod_has_no_token(manifests: list[Manifest], pod: Manifest) -> None:
    """Neither the account nor the pod hands out a token for the cluster's API."""
    account = one(manifests, "ServiceAccount")

    assert account["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == account["metadata"]["name"]


def test_kubernetes_invents_no_settings(pod: Manifest) -> None:
    """The Service's own MYSCHEDULER_* variables stay out of the pod's environment."""
    assert pod["enableServiceLinks"] is False


def test_only_data_and_tmp_are_writable(pod: Manifest, container: Manifest) -> None:
    """On the read-only root the service can write its data and temporary files, nothing else."""
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

    assert mounts == {"data": "/app/data", "tmp": "/tmp"}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)


def test_the_pod_is_bounded(container: Manifest) -> None:
    """The pod asks for little and has a limit on processor, memory and disk."""
    resources = container["resources"]

    assert resources["requests"].items() >= {"cpu": "100m", "memory": "128Mi"}.items()
    assert resources["limits"].keys() >= {"cpu", "memory", "ephemeral-storage"}


def test_probes_ask_the_right_questions(container: Manifest) -> None:
    """A pod that cannot write is taken out of service, not killed; only a stuck loop is."""
    paths = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert paths == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }


def test_runs_may_end_before_the_kill(pod: Manifest) -> None:
    """Kubernetes waits longer than running attempts may take, with time left to write back."""
    grace = int(read_settings()["MYSCHEDULER_SHUTDOWN_GRACE_SECONDS"])

    assert pod["terminationGracePeriodSeconds"] == 40
    assert pod["terminationGracePeriodSeconds"] - grace >= 10


def test_traffic_reaches_the_port(manifests: list[Manifest], container: Manifest) -> None:
    """From the Ingress through the Service's port 80, a request arrives at the pod's 8003."""
    (port,) = one(manifests, "Service")["spec"]["ports"]
    (rule,) = one(manifests, "Ingress")["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]

    assert container["ports"] == [{"name": port["targetPort"], "containerPort": 8003}]
    assert port["port"] == 80
    assert backend["name"] == one(manifests, "Service")["metadata"]["name"]
    assert backend["port"] == {"name": port["name"]}


def test_selectors_select_the_pod(manifests: list[Manifest]) -> None:
    """The Deployment, the Service and the policy all mean the pod that the template makes."""
    deployment = one(manifests, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        one(manifests, "Service")["spec"]["selector"],
        one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    assert [selector.items() <= labels.items() for selector in selectors] == [True] * 3


def peers(rules: list[Manifest], key: str) -> list[Manifest]:
    """Return whom the policy's rules name."""
    return [peer for rule in rules for peer in rule[key]]


@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.170.2", "fd00:ec2::254"])
def test_credentials_of_the_node_are_out_of_reach(manifests: list[Manifest], address: str) -> None:
    """The policy lets no web request through to an address that hands out credentials."""
    judged = ipaddress.ip_address(address)
    web = [
        rule
        for rule in one(manifests, "NetworkPolicy")["spec"]["egress"]
        if {port["port"] for port in rule.get("ports", [])} != {53}
    ]
    blocks = [peer["ipBlock"] for peer in peers(web, "to") if "ipBlock" in peer]
    reaching = [
        block
        for block in blocks
        if judged in ipaddress.ip_network(block["cidr"])
        and not any(judged in ipaddress.ip_network(hole) for hole in block.get("except", []))
    ]

    assert reaching == []


@pytest.mark.parametrize("address", ["203.0.113.7", "10.1.2.3", "2001:db8::1"])
def test_targets_are_in_reach(manifests: list[Manifest], address: str) -> None:
    """The policy lets webhooks through to every other address, on every port."""
    judged = ipaddress.ip_address(address)
    anywhere = [
        rule for rule in one(manifests, "NetworkPolicy")["spec"]["egress"] if "ports" not in rule
    ]
    blocks = [peer["ipBlock"] for peer in peers(anywhere, "to") if "ipBlock" in peer]

    assert any(judged in ipaddress.ip_network(block["cidr"]) for block in blocks)


def test_only_the_ingress_and_neighbours_come_in(manifests: list[Manifest]) -> None:
    """Of the rest of the cluster, only the ingress controller's namespace reaches the API."""
    policy = one(manifests, "NetworkPolicy")["spec"]

    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert peers(policy["ingress"], "from") == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}},
        {"podSelector": {}},
    ]


def test_settings_are_known() -> None:
    """Every setting of the ConfigMap is one of the settings that .env.example lists."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    known = {line.lstrip("#").split("=", 1)[0] for line in lines if "=" in line}

    assert read_settings().keys() <= known
