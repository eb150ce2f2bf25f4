"""Is what is stored whole, and are its promises kept? Asked by ``myscheduler check``.

Each check is a function over a snapshot that returns what is wrong and what to do about it, or
nothing. To add one, write it and put it on the list ``_CHECKS``. The last is no such function: that
every due instant has its row, and has it once, is proven by ``engine/auditor.py``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db.foreign import name_tables
from app.db.schema import find_damage, find_dangling, find_deviations, read_revisions
from app.db.unit_of_work import ReadConnection, UnitOfWork
from app.domain.clock import Clock
from app.domain.errors import UnavailableError
from app.engine.audit_walk import Audit
from app.repositories import check_repository, job_list_repository

# A lease that is over is settled within one recovery period of 5 s; one may be under way. Among
# replicas a new leader, which may come 11 s after the last, is patient for 15 s first.
_SETTLED_WITHIN = timedelta(seconds=40)
_NAMED_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """When the checks are made, and which process holds the data lock (None: nobody)."""

    now: datetime
    holder: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one named check found; ``detail`` is a sentence, with the remedy if it is not well."""

    name: str
    well: bool
    detail: str


class CheckService:
    """Runs the checks, each in a snapshot of its own; it changes nothing.

    ``prove`` proves the whole ledger.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        holder: str | None,
        prove: Callable[[], Awaitable[Audit]],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._holder = holder
        self._prove = prove

    async def check(self) -> list[Finding]:
        """Run all checks in order; one that cannot be made does not keep the others from it."""
        found = [await self._find(check) for check in _CHECKS]
        return [*found, await self._ledger()]

    async def _find(self, check: "_Check") -> Finding:
        circumstances = Circumstances(now=self._clock.now(), holder=self._holder)
        try:
            problem = await self._unit_of_work.read(
                lambda connection: check.find(connection, circumstances)
            )
        except UnavailableError as error:
            problem = _unread(error)
        detail = check.well if problem is None else problem
        return Finding(name=check.name, well=problem is None, detail=detail)

    async def _ledger(self) -> Finding:
        try:
            tally = (await self._prove()).tally
        except UnavailableError as error:
            return Finding(name="ledger", well=False, detail=_unread(error))
        if tally.is_clean:
            detail = "every due run has its entry in the history, and has it once"
        else:
            detail = (
                f"{tally.unaccounted_count} due runs have no entry in the history, and "
                f"{tally.duplicates_count} have more than one; myscheduler verify names them"
            )
        return Finding(name="ledger", well=tally.is_clean, detail=detail)


def _unread(error: UnavailableError) -> str:
    reason = getattr(error.__cause__, "orig", None) or error.__cause__ or error
    return f"this cannot be read: {reason}. {_RESTORE}"


@dataclass(frozen=True, slots=True)
class _Check:
    """A check's name, what it says when all is well, and how it finds what is not."""

    name: str
    well: str
    find: Callable[[ReadConnection, Circumstances], str | None]


_RESTORE = (
    "Stop the service, keep the file with those beside it for inspection, and put a backup "
    "in its place"
)


def _integrity(connection: ReadConnection, _at: Circumstances) -> str | None:
    damage = find_damage(connection)
    return f"the database is damaged: {'; '.join(damage)}. {_RESTORE}" if damage else None


def _foreign_keys(connection: ReadConnection, _at: Circumstances) -> str | None:
    dangling = find_dangling(connection)
    if not dangling:
        return None
    return f"rows refer to others that are missing, from {', '.join(dangling)}. {_RESTORE}"


def _revision(connection: ReadConnection, _at: Circumstances) -> str | None:
    found = read_revisions(connection)
    if found.stored == found.ours:
        return None
    if found.foreign:
        return (
            f"the database has tables ({name_tables(found.foreign)}) without this program's mark "
            "in alembic_version: it is another program's, and DATABASE_URL must be corrected; or "
            "the mark was lost, then put a backup in its place"
        )
    if found.stored is None:
        return "the database was never migrated; run myscheduler migrate"
    if found.known:
        return f"the schema is {found.stored}, not {found.ours}; run myscheduler migrate"
    return (
        f"a newer version migrated the database (its schema is {found.stored}); "
        "use that version, or put a backup made with this one in its place"
    )


def _schema(connection: ReadConnection, _at: Circumstances) -> str | None:
    deviations = find_deviations(connection)
    if not deviations:
        return None
    return (
        f"the schema is not what the migrations make: {'; '.join(deviations)}. If the check "
        "revision is well, something else changed it: put a backup in its place"
    )


def _leases(connection: ReadConnection, at: Circumstances) -> str | None:
    count = check_repository.count_overdue_leases(connection, before=at.now - _SETTLED_WITHIN)
    if not count:
        return None
    runs = f"{count} executions are marked running beyond their time"
    if at.holder is None:
        return f"{runs}, and no service runs; start it, and it settles them"
    return (
        f"{runs}, and the service does not settle them ({at.holder}); its log says why, and a "
        "restart settles them"
    )


def _jobs(connection: ReadConnection, _at: Circumstances) -> str | None:
    stored = job_list_repository.read_all_jobs(connection)
    unreadable = [job.id for job in stored if job.definition is None]
    if not unreadable:
        return None
    named = ", ".join(unreadable[:_NAMED_MAX])
    more = len(unreadable) - _NAMED_MAX
    return (
        f"the definition of {len(unreadable)} jobs cannot be read: {named}"
        f"{f' and {more} more' if more > 0 else ''}. "
        "Send each again with replace_existing=true, or delete it"
    )


_CHECKS = (
    _Check("integrity", "pages, rows and indexes agree", _integrity),
    _Check("foreign_keys", "every reference leads to a row", _foreign_keys),
    _Check("revision", "the schema's revision is this program's", _revision),
    _Check("schema", "tables, indexes and triggers are what the migrations make", _schema),
    _Check("leases", "nothing is marked running beyond its time", _leases),
    _Check("jobs", "every job's definition can be read", _jobs),
)
