"""Compares what the rules of a job name with the rows its ledger has. Pure: data in, findings out.

Imports ``domain``, the triggers and the rows' types; called by ``auditor.py`` in a thread.

A job's time within one clock epoch is a row of segments, each under the rule of one revision. Sets
are compared, not only numbers: a row too many never makes up for one that is missing. Two layers
lie over each other: the instants of the rule, and the local times that the zone's clock made void.
A stretch accounts for all of one layer between its first and its last instant, so its count is
compared, and no row of that layer may stand inside it.

::

    rule      | | | | | | | | | | | |        v: a void time
    void                    v v
    rows      | | [=======4] |               unaccounted: the two instants after it
                            v v
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from app.domain.clock import from_us, to_us
from app.domain.execution import Reason
from app.domain.ids import JobId
from app.engine.catch_up import find_stretch
from app.engine.left_out import LeftOutKind
from app.engine.triggers import ScheduleTrigger
from app.repositories.audit_repository import LedgerPage, StoredStretch

# Findings that are named; all are counted.
NAMED_MAX = 100
# Instants listed at once: with their rows some megabytes, and some milliseconds of a thread.
LISTED_MAX = 40_000

_REASONS = {LeftOutKind.GAP: Reason.DST_GAP, LeftOutKind.FOLD: Reason.DST_FOLD}


class DuplicateKind(StrEnum):
    """What is wrong with a row that should not be there."""

    SECOND_ROW = "second_row"  # its instant has another row already
    UNEXPECTED_ROW = "unexpected_row"  # no rule that was in force names its instant
    STRETCH_COUNT = "stretch_count"  # a stretch counts more instants than lie in it
    BEYOND_CURSOR = "beyond_cursor"  # its job has not come so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``count`` instants from the first to the last, that lack a row or have one too many."""

    job_id: JobId
    revision: int | None
    first_us: int
    last_us: int
    count: int
    kind: DuplicateKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A revision whose instants cannot be recomputed."""

    job_id: JobId
    revision: int
    problem: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a comparison found so far: exact numbers, and the first ``NAMED_MAX`` of each kind."""

    expected: int = 0
    unaccounted_count: int = 0
    duplicates_count: int = 0
    unreadable_count: int = 0
    unaccounted: list[Finding] = field(default_factory=list)
    duplicates: list[Finding] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    # Whether the latest instant compared is missing, so that the next one may join its finding.
    _open: bool = False

    @property
    def accounted(self) -> int:
        """Tell how many of the expected instants have their row."""
        return max(self.expected - self.unaccounted_count, 0)

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing is missing and nothing is there twice."""
        return not self.unaccounted_count and not self.duplicates_count

    def add(self, other: "Tally") -> None:
        """Take in what another comparison found."""
        self.expected += other.expected
        self.unaccounted_count += other.unaccounted_count
        self.duplicates_count += other.duplicates_count
        self.unreadable_count += other.unreadable_count
        self.unaccounted += other.unaccounted[: NAMED_MAX - len(self.unaccounted)]
        self.duplicates += other.duplicates[: NAMED_MAX - len(self.duplicates)]
        self.unreadable += other.unreadable[: NAMED_MAX - len(self.unreadable)]
        self._open = False

    def lacks(self, missing: Finding, *, joins: bool = False, stays_open: bool = False) -> None:
        """Add instants without a row; ``joins``: they follow what the last comparison ended on."""
        self.unaccounted_count += missing.count
        last = self.unaccounted[-1] if self.unaccounted else None
        if joins and self._open and last is not None and last.revision == missing.revision:
            count = last.count + missing.count
            self.unaccounted[-1] = replace(last, last_us=missing.last_us, count=count)
            self._open = stays_open
        elif len(self.unaccounted) < NAMED_MAX:
            self.unaccounted.append(missing)
            self._open = stays_open

    def has(self) -> None:
        """Note that the latest instant compared has its row."""
        self._open = False

    def doubles(self, extra: Finding) -> None:
        """Add rows too many."""
        self.duplicates_count += extra.count
        if len(self.duplicates) < NAMED_MAX:
            self.duplicates.append(extra)

    def cannot_read(self, revision: Unreadable) -> None:
        """Add a revision that cannot be recomputed."""
        self.unreadable_count += 1
        if len(self.unreadable) < NAMED_MAX:
            self.unreadable.append(revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a revision's instants are; ``has_void``: void times have rows too."""

    trigger: ScheduleTrigger
    has_void: bool

    def count(self, after_us: int, until_us: int) -> int:
        """Count the instants after one moment up to and including another."""
        if after_us >= until_us:
            return 0
        return self.trigger.count(from_us(after_us), from_us(until_us))

    def list_us(self, after_us: int, until_us: int) -> list[int]:
        """List them."""
        return self.trigger.list_us(from_us(after_us), from_us(until_us))

    def void(self, after_us: int, until_us: int) -> list[tuple[int, Reason]]:
        """List the void times between two moments, each with the reason of its row."""
        if not self.has_void or after_us >= until_us:
            return []
        found = self.trigger.left_out(from_us(after_us), from_us(until_us))
        return [(to_us(void.at), _REASONS[void.kind]) for void in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of time under one rule, or under none.

    The part that is looked at lies after ``after_us``, up to ``until_us``; the whole reaches from
    ``begin_us`` to ``end_us``. ``rule`` None: nothing may be there, or, if the rule is not
    ``known``, anything.
    """

    after_us: int
    until_us: int
    begin_us: int
    end_us: int
    revision: int | None = None
    rule: Rule | None = None
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPart:
    """Segments of one job and clock epoch that follow one another without a gap, in order."""

    job_id: JobId
    clock_epoch: int
    segments: tuple[Segment, ...]

    @property
    def after_us(self) -> int:
        """Tell the moment after which it begins."""
        return self.segments[0].after_us

    @property
    def until_us(self) -> int:
        """Tell its last moment."""
        return self.segments[-1].until_us


def reconcile(
    part: EpochPart, page: LedgerPage, tally: Tally, *, listed_max: int = LISTED_MAX
) -> int:
    """Compare a page of rows with the rules of its time; return how far that went.

    At least a bit farther than where the page begins, and not always to its end: where rows are
    missing by the million, no more than ``listed_max`` instants are listed at once.
    """
    at = page.after_us
    for segment in part.segments:
        begin, end = max(at, segment.after_us), min(page.until_us, segment.until_us)
        if begin >= end:
            continue
        if segment.rule is not None:
            comparison = _Comparison(part, segment, segment.rule, page, tally)
            at = comparison.run(begin, end, listed_max)
        else:
            _refuse_rows(part, segment, page, tally, begin=begin, end=end)
            at = end
        if at < end:
            return at
    return max(at, page.until_us)


def _refuse_rows(
    part: EpochPart, segment: Segment, page: LedgerPage, tally: Tally, *, begin: int, end: int
) -> None:
    """Find rows where no rule names an instant."""
    if not segment.known:
        return
    counts = {stretch.first_us: stretch for stretch in page.stretches}
    for us in page.rows[bisect_right(page.rows, begin) : bisect_right(page.rows, end)]:
        stretch = counts.get(us)
        tally.doubles(
            Finding(
                job_id=part.job_id,
                revision=segment.revision,
                first_us=us,
                last_us=us if stretch is None else stretch.last_us,
                count=1 if stretch is None else stretch.count,
                kind=DuplicateKind.UNEXPECTED_ROW,
            )
        )


class _Comparison:
    """Compares one page's rows with one segment's rule, piece by piece."""

    def __init__(
        self, part: EpochPart, segment: Segment, rule: Rule, page: LedgerPage, tally: Tally
    ) -> None:
        self._part = part
        self._segment = segment
        self._rule = rule
        self._tally = tally
        own = [s for s in page.stretches if segment.begin_us < s.first_us <= segment.end_us]
        self._stretches = own
        self._covers = [stretch for stretch in own if stretch.void is None]
        self._void_covers = [stretch for stretch in own if stretch.void is not None]
        firsts = {stretch.first_us for stretch in own}
        # A stretch's own row is checked by its count.
        self._rows = [us for us in page.rows if us not in firsts] if firsts else page.rows
        self._next = 0
        self._covered_until = 0

    def run(self, begin: int, end: int, listed_max: int) -> int:
        """Compare from one moment to another, or as far as what must be listed allows."""
        self._pass_over(begin)
        for after, until, is_covered in self._pieces(begin, end):
            reached = until if is_covered else self._fit(after, until, listed_max)
            self._check_counts(reached)
            if is_covered:
                self._compare_covered(after, reached)
            else:
                self._compare_free(after, reached, listed_max)
            if reached < until:
                return reached
        return end

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Divide time into what a stretch of instants covers and what none does."""
        at = begin
        for cover in self._covers:
            if cover.first_us > end:
                break
            if cover.last_us <= at:
                continue
            if cover.first_us - 1 > at:
                yield at, cover.first_us - 1, False
                at = cover.first_us - 1
            until = min(cover.last_us, end)
            yield at, until, True
            at = until
        if at < end:
            yield at, end, False

    def _pass_over(self, begin: int) -> None:
        """Leave out the stretches that an earlier page has checked."""
        while self._next < len(self._stretches):
            stretch = self._stretches[self._next]
            if self._enters(stretch) > begin:
                return
            self._note_cover(stretch)
            self._next += 1

    def _check_counts(self, until: int) -> None:
        """Compare the counts of the stretches that are entered up to a moment."""
        while self._next < len(self._stretches):
            stretch = self._stretches[self._next]
            if self._enters(stretch) > until:
                return
            self._check_count(stretch)
            self._note_cover(stretch)
            self._next += 1

    def _enters(self, stretch: StoredStretch) -> int:
        return max(stretch.first_us, self._part.after_us + 1, self._segment.after_us + 1)

    def _note_cover(self, stretch: StoredStretch) -> None:
        if stretch.void is None:
            self._covered_until = max(self._covered_until, stretch.last_us)

    def _check_count(self, stretch: StoredStretch) -> None:
        if stretch.last_us <= self._segment.after_us:
            return  # over before what is looked at
        begin = max(stretch.first_us - 1, self._segment.begin_us)
        end = min(stretch.last_us, self._segment.end_us)
        held = self._count_layer(stretch.void, begin, end)
        found = replace(
            self._finding(stretch.first_us),
            last_us=stretch.last_us,
            count=abs(held - stretch.count),
        )
        if stretch.count > held:
            self._tally.doubles(replace(found, kind=DuplicateKind.STRETCH_COUNT))
        elif stretch.count < held:
            seen = self._count_layer(
                stretch.void,
                max(begin, self._segment.after_us),
                min(end, self._segment.until_us),
            )
            self._tally.lacks(replace(found, count=min(found.count, seen)))
        if stretch.void is None and stretch.first_us <= self._covered_until:
            twice = self._rule.count(begin, min(end, self._covered_until))
            if twice:
                self._tally.doubles(replace(found, count=twice, kind=DuplicateKind.SECOND_ROW))

    def _count_layer(self, void: Reason | None, after: int, until: int) -> int:
        if void is None:
            return self._rule.count(after, until)
        return sum(reason is void for _, reason in self._rule.void(after, until))

    def _fit(self, after: int, until: int, listed_max: int) -> int:
        """Shorten a piece until its instants may be listed; one without rows is only counted."""
        while self._rows_between(after, until):
            if self._rule.count(after, until) <= listed_max:
                return until
            first = self._rows_between(after, until)[0]
            if self._rule.count(after, first - 1) > listed_max // 2:
                return first - 1
            until = (after + until) // 2
        return until

    def _compare_covered(self, after: int, until: int) -> None:
        count = self._rule.count(after, until)
        self._tally.expected += count
        if count:
            self._tally.has()
        self._compare([], self._take_void(after, until), after, until)

    def _compare_free(self, after: int, until: int, listed_max: int) -> None:
        void = self._take_void(after, until)
        count = self._rule.count(after, until)
        if count > listed_max:
            self._add_gap(after, until, count=count, void=void)
            return
        instants = self._rule.list_us(after, until)
        self._compare(instants, void, after, until)

    def _take_void(self, after: int, until: int) -> list[int]:
        """List the void times that must have rows of their own; count those in stretches."""
        found = self._rule.void(after, until)
        alone = [
            us
            for us, reason in found
            if not any(
                cover.void is reason and cover.first_us <= us <= cover.last_us
                for cover in self._void_covers
            )
        ]
        self._tally.expected += len(found) - len(alone)
        return alone

    def _add_gap(self, after: int, until: int, *, count: int, void: Sequence[int]) -> None:
        """Note instants without any row, too many to be listed."""
        span = find_stretch(self._rule.trigger, after=from_us(after), until=from_us(until))
        assert span is not None, "it was counted before"
        self._tally.expected += count + len(void)
        missing = replace(
            self._finding(to_us(span.first)), last_us=to_us(span.last), count=count + len(void)
        )
        self._tally.lacks(missing, joins=True, stays_open=True)

    def _compare(self, instants: list[int], void: Sequence[int], after: int, until: int) -> None:
        """Compare lists; the instants of a stretch are not among them."""
        expected = sorted([*instants, *void]) if void else instants
        rows = self._rows_between(after, until)
        self._tally.expected += len(instants) + len(void)
        if rows == expected:
            if expected:
                self._tally.has()
            return
        found, wanted = Counter(rows), set(expected)
        self._add_missing(expected, found)
        for us, number in found.items():
            for _ in range(number - (us in wanted)):
                named = us in wanted or self._rule.count(us - 1, us)
                kind = DuplicateKind.SECOND_ROW if named else DuplicateKind.UNEXPECTED_ROW
                self._tally.doubles(replace(self._finding(us), kind=kind))

    def _add_missing(self, expected: Sequence[int], found: Counter[int]) -> None:
        """Note the instants without a row, those that follow one another as one."""
        run: list[int] = []
        joins = True
        for us in expected:
            if us in found:
                self._add_run(run, joins=joins, stays_open=False)
                self._tally.has()
                run, joins = [], False
            else:
                run.append(us)
        self._add_run(run, joins=joins, stays_open=True)

    def _add_run(self, run: Sequence[int], *, joins: bool, stays_open: bool) -> None:
        if run:
            missing = replace(self._finding(run[0]), last_us=run[-1], count=len(run))
            self._tally.lacks(missing, joins=joins, stays_open=stays_open)

    def _rows_between(self, after: int, until: int) -> list[int]:
        rows = self._rows
        return rows[bisect_right(rows, after) : bisect_right(rows, until)]

    def _finding(self, us: int) -> Finding:
        return Finding(
            job_id=self._part.job_id,
            revision=self._segment.revision,
            first_us=us,
            last_us=us,
            count=1,
        )
