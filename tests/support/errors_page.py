"""Makes docs/errors.md from the catalogue; ``python -m tests.support.readme`` writes it."""

from app.api.errors import http_statuses
from app.domain.catalogue import (
    GROUP_TITLES,
    CatalogueEntry,
    ErrorEntry,
    Group,
    ReasonEntry,
    Text,
    all_errors,
    all_reasons,
)

_UNUSED = Text(en=" Not used in this version.", ja="このバージョンでは使われません。")
_USED = Text(en="", ja="")


def errors_page() -> str:
    """Make docs/errors.md."""
    reasons = "\n".join(_group(group, title) for group, title in GROUP_TITLES.items())
    codes = "\n".join(_error(code, entry) for code, entry in all_errors().items())
    return _PAGE.format(reasons=reasons, codes=codes)


def _group(group: Group, title: Text) -> str:
    entries = [
        _reason(reason.value, entry)
        for reason, entry in all_reasons().items()
        if entry.group is group
    ]
    return f"### {title.en} / {title.ja}\n\n" + "\n".join(entries)


def _reason(code: str, entry: ReasonEntry) -> str:
    statuses = ", ".join(f"`{status.value}`" for status in entry.statuses)
    return _entry(code, entry, aside=statuses, note=_USED if entry.in_use else _UNUSED)


def _error(code: str, entry: ErrorEntry) -> str:
    aside = f"HTTP {http_statuses()[code].value}" if entry.answered else ""
    return _entry(code, entry, aside=aside, note=_USED)


def _entry(code: str, entry: CatalogueEntry, *, aside: str, note: Text) -> str:
    after = f" ({aside})" if aside else ""
    return (
        f"#### `{code}`\n\n"
        f"{entry.title.en} / {entry.title.ja}{after}\n\n"
        f"- Cause: {entry.cause.en}{note.en}\n"
        f"- Fix: {entry.fix.en}\n"
        f"- 原因：{entry.cause.ja}{note.ja}\n"
        f"- 対処：{entry.fix.ja}\n"
    )


_PAGE = """\
# Errors: cause and fix / エラーの原因と対処

<!-- Made from app/domain/catalogue by `python -m tests.support.readme`; do not edit. -->

An execution that did not complete has a `reason`. An answer of the API that is an error has a \
`code`. Each has an entry here, with the statuses it comes with. `GET /api/v1/reasons` answers the \
same texts.

完了しなかった execution には `reason`、API のエラー応答には `code` があります。そのすべてを、伴う\
ステータスとともにここに載せます。`GET /api/v1/reasons` でも同じ文を取得できます。

## Reasons / `reason`

{reasons}
## Error codes of the API / API のエラーコード

{codes}"""
