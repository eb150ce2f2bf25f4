import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.bout import Ring, fight
from benchmarks.contenders import Ground, Opener, Rows, Wish, myscheduler_sqlite, old_design
from benchmarks.installed import Installed
from benchmarks.load import Client
from benchmarks.stores import DurablePostgres

JOBS = 20


class Careless:
    """Calls the last job's URL at once, twice, and no other; says that all is done."""

    has_api = False

    async def rehearse(self) -> float:
        return 0.0

    async def create(self, wishes: Sequence[Wish]) -> float:
        url = urlsplit(wishes[-1].url)
        assert url.port is not None
        async with Client(url.port) as client:
            await client.post(url.path)
            await client.post(url.path)
        return 0.0

    async def rows(self) -> Rows:
        return Rows(over=10_000, last=0.0)

    def pids(self) -> list[int]:
        return []

    def store_pids(self) -> list[int]:
        return []


@contextlib.asynccontextmanager
async def careless(_ground: Ground) -> AsyncIterator[Careless]:
    yield Careless()


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    postgres = DurablePostgres()
    yield Ring(postgres=postgres, installed=Installed(tmp_path))
    postgres.stop()


@pytest.mark.slow
@pytest.mark.parametrize("opener", [myscheduler_sqlite, old_design])
async def test_a_turn_counts_what_arrived_and_what_was_kept(opener: Opener, ring: Ring):
    """Both services take the same jobs by the same requests, and every run arrives and is kept."""
    bout = await fight("one", opener, ring, jobs=JOBS, lone=False)
    assert (bout.lateness_ms.count, bout.lost, bout.doubled, bout.unrecorded) == (JOBS, 0, 0, 0)
    assert bout.created_per_second > 0
    assert bout.per_second > 0
    assert bout.cpu_ms_per_run > 0


@pytest.mark.slow
async def test_a_run_costs_a_small_part_of_the_old_designs(ring: Ring):
    """In CPU time, side by side, a run costs less than a thirtieth of what it did.

    Both are held against each other on the same machine in the same minute, since times alone say
    nothing; when this was written it was a sixtieth to a ninetieth.
    """
    ours = await fight("ours", myscheduler_sqlite, ring, jobs=1_000, lone=False)
    old = await fight("old", old_design, ring, jobs=2 * JOBS, lone=False)
    assert (ours.lost, ours.doubled, ours.unrecorded) == (0, 0, 0)
    assert old.cpu_ms_per_run / ours.cpu_ms_per_run > 30


@pytest.mark.slow
async def test_a_turn_believes_the_target_only(ring: Ring):
    """Whatever a contender says of itself, lost, doubled and early runs are the target's count."""
    bout = await fight("careless", careless, ring, jobs=JOBS, lone=False)
    assert (bout.lost, bout.doubled, bout.early) == (JOBS - 1, 1, 1)
