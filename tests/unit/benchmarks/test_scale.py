"""The arithmetic of what clusters carry."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.scale import Costs, Server, capacities, capacity

COSTS = Costs(scheduler_ms=0.1, worker_ms=0.4, database_ms=0.2, wal_kib=2)


@pytest.mark.parametrize(
    ("server", "workers", "runs", "limited_by"),
    [
        (Server(cores=8, log_mib_per_second=100), 1, 2000, "sending"),
        (Server(cores=8, log_mib_per_second=100), 3, 6000, "sending"),
        (Server(cores=8, log_mib_per_second=100), 9, 8000, "ticks"),
        (Server(cores=1, log_mib_per_second=100), 3, 4000, "database"),
        (Server(cores=8, log_mib_per_second=10), 3, 5120, "log"),
    ],
)
def test_the_least_limit_is_the_clusters(server, workers, runs, limited_by):
    """A cluster carries what its scarcest resource allows, and is told which that is."""
    found = capacity(COSTS, server, workers=workers)
    assert (found.runs_per_second, found.limited_by) == (runs, limited_by)


def test_more_workers_until_they_add_nothing():
    """Clusters are reckoned up to the first that more workers would not help."""
    found = list(capacities(COSTS, Server(cores=8, log_mib_per_second=100)))
    assert [one.workers for one in found] == [1, 2, 4]
    assert [one.limited_by for one in found] == ["sending", "sending", "ticks"]
    assert found[0].connections < found[1].connections


def test_the_command():
    """Costs come by flags; a cost of nothing is refused."""
    flags = ["--scheduler-ms", "0.1", "--worker-ms", "0.4", "--wal-kib", "2", "--json"]
    said = CliRunner().invoke(app, ["scale", *flags, "--database-ms", "0.2"])
    assert json.loads(said.stdout)[0]["runs_per_second"] == 2000
    assert CliRunner().invoke(app, ["scale", *flags, "--database-ms", "0"]).exit_code == 2
