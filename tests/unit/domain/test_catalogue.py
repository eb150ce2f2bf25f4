"""The catalogue of reasons and error codes: complete, in both languages, and true to the code."""

import random
import re
from itertools import product

import pytest

from app.domain.catalogue import (
    GROUP_TITLES,
    CatalogueEntry,
    Group,
    Text,
    all_errors,
    all_reasons,
    error_entry,
    nearest_code,
    reason_entry,
)
from app.domain.catalogue.attempt_failures import ATTEMPT_FAILURES
from app.domain.catalogue.interruptions import INTERRUPTIONS
from app.domain.catalogue.misses import MISSES
from app.domain.catalogue.omissions import OMISSIONS
from app.domain.execution import AttemptOutcome, ExecutionStatus, Outcome, Reason
from app.domain.policies import OnCrash, RetryPolicy
from app.engine.retries import conclude
from app.engine.tick import QUEUE_MAX
from tests.support.builders import NOON, make_claimed, make_delivery, make_policy

ENTRIES: dict[str, CatalogueEntry] = {
    **{f"reason-{reason.value}": reason_entry(reason) for reason in Reason},
    **{f"code-{code}": entry for code, entry in all_errors().items()},
}
EACH_ENTRY = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
PARTS = (ATTEMPT_FAILURES, OMISSIONS, MISSES, INTERRUPTIONS)
JAPANESE = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
POLITE = ("です", "ます", "ません", "ました", "でした", "ください")
# How an attempt can fail: outcomes as the runner and the attempts report them.
FAILURES = [
    (AttemptOutcome.RESPONSE, Reason.STATUS, 404),
    (AttemptOutcome.RESPONSE, Reason.STATUS, 503),
    (AttemptOutcome.TIMEOUT, Reason.TIMEOUT, None),
    (AttemptOutcome.CONNECT_ERROR, Reason.DNS, None),
    (AttemptOutcome.CONNECT_ERROR, Reason.CONNECT, None),
    (AttemptOutcome.CONNECT_ERROR, Reason.TLS, None),
    (AttemptOutcome.PROTOCOL_ERROR, Reason.PROTOCOL, None),
    (AttemptOutcome.TOO_LARGE, Reason.RESPONSE_TOO_LARGE, 200),
    (AttemptOutcome.BLOCKED, Reason.EGRESS_DENIED, None),
    (AttemptOutcome.BLOCKED, Reason.CONFIG_ERROR, None),
    (AttemptOutcome.INTERRUPTED, Reason.SHUTDOWN, None),
]


def texts(entry: CatalogueEntry) -> list[Text]:
    """List the three texts of an entry."""
    return [entry.title, entry.cause, entry.fix]


def test_every_reason_has_exactly_one_entry():
    """Each reason is explained in one module of the catalogue, and nothing else is."""
    explained = [reason for part in PARTS for reason in part]

    assert sorted(explained) == sorted(Reason)
    assert list(all_reasons()) == explained


def test_each_module_holds_one_group():
    """The reasons of a group stand together, and each group has a title and entries."""
    groups = [{entry.group for entry in part.values()} for part in PARTS]

    assert groups == [{group} for group in Group]
    assert list(GROUP_TITLES) == list(Group)


@EACH_ENTRY
def test_each_text_is_in_its_language(entry: CatalogueEntry):
    """English has nothing Japanese in it, and Japanese is Japanese."""
    for text in [*texts(entry), *GROUP_TITLES.values()]:
        assert text.en.isascii()
        assert JAPANESE.search(text.ja)


@EACH_ENTRY
def test_cause_and_fix_are_sentences(entry: CatalogueEntry):
    """A cause and a fix begin and end as sentences; a title is short and has no full stop."""
    for text in (entry.cause, entry.fix):
        assert re.match("[A-Z`1]", text.en)
        assert text.en.endswith(".")
        assert text.ja.endswith("。")
        sentences = re.sub("（[^）]*）", "", text.ja).rstrip("。").split("。")
        assert [s for s in sentences if not s.endswith(POLITE)] == []
    assert len(entry.title.en) <= 40
    assert len(entry.title.ja) <= 20
    assert not entry.title.en.endswith(".")
    assert "。" not in entry.title.ja


@EACH_ENTRY
def test_both_languages_name_the_same_code(entry: CatalogueEntry):
    """Fields, values and settings in backticks are the same in both languages."""
    for text in texts(entry):
        named = [re.findall("`[^`]*`", words) for words in (text.en, text.ja)]
        assert set(named[0]) == set(named[1])
        assert text.en.count("`") % 2 == 0


@EACH_ENTRY
def test_texts_are_joined_without_gaps(entry: CatalogueEntry):
    """Texts that stand on several lines of code are joined by one space, or by none in Japanese."""
    for text in texts(entry):
        assert "  " not in text.en + text.ja
        plain = re.sub("`[^`]*`", "`", text.en).replace("PostgreSQL", "")
        assert not re.search(r"\w`|`\w|[a-z][A-Z]|[.;:]\w|,[A-Za-z]", plain)
        assert not re.search(r"[ぁ-んァ-ヶ一-龠] [ぁ-んァ-ヶ一-龠]", text.ja)


def test_the_longest_queue_is_told_as_it_is():
    """The entry on a full queue names the number that the tick goes by."""
    for words in (
        reason_entry(Reason.QUEUE_FULL).cause.en,
        reason_entry(Reason.QUEUE_FULL).cause.ja,
    ):
        assert f"{QUEUE_MAX:,}" in words


@pytest.mark.parametrize("on_crash", list(OnCrash))
@pytest.mark.parametrize(("kind", "reason", "http_status"), FAILURES)
def test_attempts_end_with_the_statuses_told(
    kind: AttemptOutcome, reason: Reason, http_status: int | None, on_crash: OnCrash
):
    """Whatever a failed attempt makes of its execution, its reason's entry lists the status."""
    for max_retries, retries in product((0, 1), (0, 1)):
        run = make_claimed(
            retries=retries,
            delivery=make_delivery(retry=RetryPolicy(max_retries=max_retries)),
            policy=make_policy(on_crash=on_crash),
        )
        outcome = Outcome(kind=kind, reason=reason, http_status=http_status, error="It failed")
        ending = conclude(run, outcome, owner="me", ended_at=NOON, chance=random.Random(0))

        assert ending.reason is not None
        assert ending.status in reason_entry(ending.reason).statuses


def test_a_reason_comes_with_statuses_that_may_have_one():
    """No entry lists a status that says nothing went wrong, or lists one twice."""
    without = {ExecutionStatus.QUEUED, ExecutionStatus.RUNNING, ExecutionStatus.COMPLETED}
    for entry in all_reasons().values():
        assert not without & set(entry.statuses)
        assert len(entry.statuses) == len(set(entry.statuses))


def test_an_unknown_code_has_no_entry():
    """Asking for an error code that does not exist gives nothing."""
    assert error_entry("none") is None


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("time_out", "timeout"),
        ("TIMEOUT", "timeout"),
        ("job-not-found", "job_not_found"),
        ("egress", "egress_denied"),
        ("xyzzy", None),
        ("", None),
    ],
)
def test_a_code_is_guessed(word: str, meant: str | None):
    """A misspelt name leads to the reason or error code that is most like it, if any is."""
    assert nearest_code(word) == meant
