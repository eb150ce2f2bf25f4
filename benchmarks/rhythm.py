"""Interval jobs of which every due instant is known beforehand, and what came of each instant."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.figures import Arrival, Judgement, RunFigures, Spread, judge
from benchmarks.ledger import Run, count_left_out, run_figures
from benchmarks.load import creation
from benchmarks.machine import Usage
from benchmarks.prober import probing
from benchmarks.stage import Stage, check_in_time
from benchmarks.target import Target

_PERIOD = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """``jobs`` jobs, each due once a second from ``begin`` on for ``seconds`` seconds.

    Their first instants are spread evenly over the second, or all at once (``aligned``).
    """

    jobs: int
    seconds: int
    begin: float
    aligned: bool = False
    name: str = "beat"

    @property
    def instants(self) -> int:
        """Tell how many instants there are in all."""
        return self.jobs * self.seconds

    @property
    def end(self) -> float:
        """Tell an instant behind the last one, and before there could be another."""
        return self.begin + self.seconds * _PERIOD

    def requests(self, target: Target, *, way: str = "ok", **fields: Any) -> list[bytes]:
        """Write the requests that create the jobs, which call the target in a ``way``."""
        keys = [self._key(number) for number in range(self.jobs)]
        return [
            self._request(number, target.url(key, way=way), fields)
            for number, key in enumerate(keys)
        ]

    def dues(self) -> dict[str, float]:
        """Tell every due instant, under the name that ``name_of`` gives it."""
        return {
            name_of(self._key(number), due): due
            for number in range(self.jobs)
            for due in (round(self._first(number) + n * _PERIOD, 6) for n in range(self.seconds))
        }

    def _request(self, number: int, url: str, fields: Mapping[str, Any]) -> bytes:
        first = self._first(number)
        return creation(
            self._key(number),
            url,
            schedule_type="interval",
            interval={"seconds": _PERIOD},
            start_at=_iso(first),
            # Between the last instant and the next.
            end_at=_iso(first + (self.seconds - 0.5) * _PERIOD),
            **fields,
        )

    def _key(self, number: int) -> str:
        return f"{self.name}-{number}"

    def _first(self, number: int) -> float:
        share = 0.0 if self.aligned else number / self.jobs
        return round(self.begin + share * _PERIOD, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a rhythm's instants came to, and what the API took meanwhile."""

    rhythm: Rhythm
    runs: list[Run]
    before: Usage
    after: Usage
    api_ms: Spread

    @property
    def left_out(self) -> int:
        """Count the instants that have a row and did not run."""
        return count_left_out(self.runs)

    def figures(self, target: Target) -> RunFigures:
        """Judge it by the target's log, which is there once the stage is left."""
        judged = judge_rhythm(self.rhythm, self.runs, target.arrivals)
        return run_figures(
            self.runs, judged, before=self.before, after=self.after, left_out=self.left_out
        )


async def play(stage: Stage, rhythm: Rhythm, requests: list[bytes]) -> Played:
    """Create a rhythm's jobs in time and wait until their last instant is over."""
    await stage.create(requests, title=f"create {len(requests)}")
    check_in_time(rhythm.begin)
    await stage.wait_until(rhythm.begin)
    before = stage.service.usage()
    probed = (f"/api/v1/jobs/{rhythm.name}-0", "/api/v1/jobs?limit=50")
    async with probing(stage.service.port, *probed) as calls:
        await stage.wait_until_done(rhythm.instants, rhythm.end)
    return Played(
        rhythm=rhythm,
        after=stage.service.usage(),
        before=before,
        runs=await stage.ledger.runs(f"{rhythm.name}-%"),
        api_ms=calls.spread(),
    )


def name_of(job_id: str, due: float) -> str:
    """Name an instant of a job."""
    return f"{job_id}@{due:.6f}"


def judge_rhythm(rhythm: Rhythm, runs: Iterable[Run], arrivals: Iterable[Arrival]) -> Judgement:
    """Hold the arrivals against the known instants; the ledger only says which is which."""
    names = {run.id: name_of(run.job_id, run.due) for run in runs}
    return judge(
        ((names.get(arrival.identity, arrival.identity), arrival.at) for arrival in arrivals),
        rhythm.dues(),
    )


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
