"""Interval jobs of which every due instant is known beforehand, and what came of each instant."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.figures import Arrival, Judgement, judge
from benchmarks.ledger import Run
from benchmarks.load import creation
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
