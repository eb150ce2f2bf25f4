"""Hooks of Schemathesis for this API: ids that exist, and jobs that are stored and call nobody.

Schemathesis knows the OpenAPI document and nothing else: almost every id of its own is unknown and
almost every job refused, so that little of the service would be reached. Half of its requests are
therefore mended here, chosen by what is in them and so the same in every run of a seed. Loaded in
Schemathesis' process through ``SCHEMATHESIS_HOOKS``; imports nothing of ours.
"""

import json
import zlib
from collections import deque
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response

# Nobody listens there, and it is all that the service may call.
_TARGET_URL = "http://127.0.0.1:9/"
_KEPT_FIELDS = 2
_REMEMBERED = 50
_JOBS = 201
_BASES: tuple[dict[str, Any], ...] = (
    {"schedule_type": "cron", "cron": {"minute": "*/7", "hour": 3}},
    {"schedule_type": "interval", "interval": {"hours": 5}},
    {"schedule_type": "crontab", "crontab": "30 4 * * mon"},
    {"schedule_type": "date", "run_at": "2098-01-01T00:00:00+09:00"},
)
# The ids that the service answered last, by the name of the parameter that takes them.
_seen: dict[str, deque[str]] = {
    name: deque(maxlen=_REMEMBERED) for name in ("job_id", "execution_id")
}


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Mend half of the requests: known ids in paths, jobs that can be stored."""
    draw = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode())
    if case.method == "POST" and case.path == "/api/v1/jobs" and isinstance(case.body, dict):
        case.body = _mend_job(case.body, draw)
    if draw % 2:
        if "Idempotency-Key" in case.headers:
            del case.headers["Idempotency-Key"]
        for name in {*(case.path_parameters or {})} & {*_seen}:
            if _seen[name]:
                case.path_parameters[name] = _seen[name][draw % len(_seen[name])]


@schemathesis.hook
def after_call(_context: HookContext, _case: Case[Any], response: Response) -> None:
    """Remember the ids in an answer."""
    if response.status_code != 200:
        return
    found = json.loads(response.content)
    lists = [found[name] for name in ("jobs", "executions") if isinstance(found.get(name), list)]
    for item in [found, *(item for items in lists for item in items[:_REMEMBERED])]:
        for name, ids in _seen.items():
            if isinstance(item.get(name), str) and item[name] not in ids:
                ids.append(item[name])


def _mend_job(body: dict[str, Any], draw: int) -> dict[str, Any]:
    if isinstance(body.get("target_url"), str):
        body = {**body, "target_url": _TARGET_URL}
    if draw % 2 == 0:
        return body
    names = sorted(body, key=lambda name: zlib.crc32(f"{draw}{name}".encode("utf-8", "replace")))
    kept = {name: body[name] for name in names[:_KEPT_FIELDS]}
    base = _BASES[draw // 2 % len(_BASES)]
    name = {"job_id": f"fuzz-{draw % _JOBS}", "replace_existing": True}
    return {**name, **kept, **base, "target_url": _TARGET_URL}
