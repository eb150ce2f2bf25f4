"""compose.yaml: two replicas and their PostgreSQL. No container is started."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import __version__
from app.core.config import SETTING_NAMES, Settings
from app.core.database_url import check_database_url

ROOT = Path(__file__).resolve().parents[2]
SERVICE_KEYS = {
    "image", "build", "environment", "deploy", "ports", "depends_on", "read_only", "tmpfs",
    "cap_drop", "security_opt", "restart", "stop_grace_period", "volumes", "healthcheck",
}  # fmt: skip
Service = dict[str, Any]


@pytest.fixture
def compose() -> dict[str, Any]:
    """Return the whole file."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def replicas(compose: dict[str, Any]) -> Service:
    """Return the service that runs more than once."""
    service: Service = compose["services"]["myscheduler"]
    return service


@pytest.fixture
def postgres(compose: dict[str, Any]) -> Service:
    """Return the database."""
    service: Service = compose["services"]["postgres"]
    return service


def test_no_key_is_misspelt(compose: dict[str, Any]) -> None:
    """Every key is one that Compose knows."""
    assert set(compose) == {"name", "services", "volumes"}
    assert {key for service in compose["services"].values() for key in service} <= SERVICE_KEYS


def test_images_are_named_with_their_version(replicas: Service, postgres: Service) -> None:
    """The service is the image that the README builds, the database a supported PostgreSQL."""
    found = re.fullmatch(r"postgres:(\d+)", postgres["image"])

    assert replicas["image"] == f"myscheduler:{__version__}"
    assert replicas["build"] == "."
    assert found is not None
    assert int(found[1]) >= 16


def test_the_data_outlives_the_container(compose: dict[str, Any], postgres: Service) -> None:
    """The database writes to a named volume, at the place where its image keeps data."""
    (mount,) = postgres["volumes"]
    volume, path = mount.split(":")

    assert set(compose["volumes"]) == {volume}
    # Since PostgreSQL 18 the image keeps each major version in a folder of its own below this.
    assert path == "/var/lib/postgresql"


def test_replicas_start_when_the_database_answers(replicas: Service, postgres: Service) -> None:
    """Two replicas wait for the database's health check, which asks by TCP."""
    assert replicas["deploy"]["replicas"] == 2
    assert replicas["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert postgres["healthcheck"]["test"][:3] == ["CMD", "pg_isready", "--host=127.0.0.1"]


def test_the_address_names_the_database(replicas: Service, postgres: Service) -> None:
    """User, database and password agree on both sides, and no password is written down."""
    secret = "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"
    url = replicas["environment"]["DATABASE_URL"]
    user, name = (postgres["environment"][f"POSTGRES_{key}"] for key in ("USER", "DB"))

    assert url == f"postgresql://{user}:{secret}@postgres:5432/{name}"
    assert postgres["environment"]["POSTGRES_PASSWORD"] == secret
    assert check_database_url(url.replace(secret, "x")) == url.replace(secret, "x")
    assert set(replicas["environment"]) <= set(SETTING_NAMES)


def test_each_replica_has_a_port_on_this_machine(replicas: Service) -> None:
    """There are as many ports as replicas, and none is open to the network."""
    (ports,) = replicas["ports"]
    found = re.fullmatch(r"127\.0\.0\.1:(\d+)-(\d+):8003", ports)

    assert found is not None
    assert int(found[2]) - int(found[1]) + 1 == replicas["deploy"]["replicas"]


def test_replicas_run_without_privilege(replicas: Service) -> None:
    """Nothing but scratch space is writable, and there is no way to more rights."""
    assert replicas["read_only"] is True
    assert replicas["cap_drop"] == ["ALL"]
    assert replicas["security_opt"] == ["no-new-privileges:true"]
    assert replicas["tmpfs"] == ["/tmp", "/app/data"]


def test_runs_may_end_before_the_kill(replicas: Service) -> None:
    """Docker waits longer than attempts under way may take."""
    grace = int(replicas["stop_grace_period"].removesuffix("s"))

    assert grace - Settings().shutdown_grace_seconds >= 10
