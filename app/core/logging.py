"""Log lines: one event each, the same shape whoever speaks, without secrets.

Components call ``structlog.get_logger(__name__)``; libraries log through the standard ``logging``;
both end in the same processors and the same stream. ``main`` calls ``configure_logging`` once,
before the first line. A line that cannot be written is counted, never raised: a full disk under the
log must not stop a run.
"""

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.core.config import LogFormat, LogLevel
from app.core.redaction import MASK, is_harmless, is_secret_key, mask_secrets, mask_urls

# What libraries say below WARNING is about themselves: APScheduler alone logs twice per run.
_QUIET_LOGGERS = (
    "alembic",
    "apscheduler",
    "asyncio",
    "httpcore",
    "httpx",
    "sqlalchemy",
    "uvicorn.access",
)
# uvicorn gives these handlers of their own unless told otherwise.
_UVICORN_LOGGERS = ("uvicorn", "uvicorn.access", "uvicorn.error")
# Collectors cut or split lines beyond 16 to 256 KiB; JSON is ASCII here, so characters are bytes.
_LINE_CHARACTERS_MAX = 65_536
_CUT_VALUE_CHARACTERS = 1_000
_TRACEBACK_FRAMES_MAX = 20
# First on every line, in this order.
_LEADING_KEYS = ("timestamp", "level", "logger", "event")


def configure_logging(level: LogLevel, log_format: LogFormat, *, stream: TextIO) -> None:
    """Send everything at ``level`` and above to ``stream``, as ``log_format`` says.

    ``auto`` is console on a terminal and JSON elsewhere. Loggers that spoke before keep their old
    configuration: call this first. ``uvicorn.Config`` needs ``log_config=None``.
    """
    is_console = log_format is LogFormat.CONSOLE or (
        log_format is LogFormat.AUTO and stream.isatty()
    )
    sink = _Sink(stream)
    own: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final = _make_console_chain(stream) if is_console else _make_json_chain()
    structlog.configure(
        processors=[*own, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        logger_factory=lambda name="app", *_: _LineLogger(name, sink),
        cache_logger_on_first_use=True,
    )
    foreign = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
    _route_standard_logging(level, sink, processors=foreign)


@contextlib.contextmanager
def lines_together() -> Iterator[None]:
    """Write what this thread logs within the block in one go, at its end, however that comes.

    Each line by itself is a call of the system, at which another thread takes the interpreter. For
    blocks of moments that await nothing: what is logged meanwhile shows only afterwards.
    """
    if _held.lines is not None:
        yield
        return
    lines = _held.lines = []
    try:
        yield
    finally:
        _held.lines = None
        for sink, group in groupby(lines, key=itemgetter(0)):
            sink.put([line for _, line in group])


class _Sink:
    """Writes whole lines to a stream, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._lock = threading.Lock()
        self._lines_lost = 0

    def write(self, line: str) -> None:
        """Write one line, given without its end."""
        if not line.isascii():
            line = line.encode(self._encoding, "backslashreplace").decode(self._encoding)
        if _held.lines is None:
            self.put([line])
        else:
            _held.lines.append((self, line))

    def put(self, lines: list[str]) -> None:
        """Write lines to the stream; once writing works again, tell what was lost."""
        with self._lock:
            try:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                # ValueError: the stream is closed. There is no better place to say either.
                self._lines_lost += len(lines)
                return
            lines_lost, self._lines_lost = self._lines_lost, 0
        if lines_lost:
            structlog.get_logger(__name__).warning("log.lines_lost", lines=lines_lost)

    def flush(self) -> None:
        """Do nothing: every line is flushed as it is written."""


class _Held(threading.local):
    """What a thread holds back within ``lines_together``; None outside."""

    lines: list[tuple[_Sink, str]] | None = None


_held = _Held()


class _LineLogger:
    """The end of structlog's chain: takes rendered lines of one named logger."""

    def __init__(self, name: str, sink: _Sink) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = sink.write


def _make_json_chain() -> list[Processor]:
    transformer = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=False,  # they hold secrets
        max_frames=_TRACEBACK_FRAMES_MAX,
    )
    return [structlog.processors.ExceptionRenderer(transformer), _redact, _render_json]


def _make_console_chain(stream: TextIO) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        sort_keys=False,
        pad_event_to=28,
    )
    return [structlog.processors.format_exc_info, _redact, _escape_controls, renderer]


def _route_standard_logging(level: LogLevel, sink: _Sink, *, processors: list[Processor]) -> None:
    handler = logging.StreamHandler(sink)
    handler.terminator = ""
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=processors,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.value)
    for name in _UVICORN_LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(capture=True)


def _add_logger_name(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["logger"] = logger.name
    return event


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask secrets and put the leading keys first; the last processor before the renderer."""
    redacted = {key: event.pop(key) for key in _LEADING_KEYS if key in event}
    for key, value in event.items():
        if is_secret_key(key):
            redacted[key] = MASK
        else:
            redacted[key] = value if is_harmless(value) else mask_secrets(value)
    redacted["event"] = mask_urls(str(redacted.get("event", "")))
    return redacted


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        line = _encode(event)
    except (TypeError, ValueError, RecursionError):
        # A key that is no text, NaN, or a value that contains itself.
        line = _encode({str(key): _simplify(value) for key, value in event.items()})
    if len(line) > _LINE_CHARACTERS_MAX:
        line = _encode({str(key): _cut(value) for key, value in event.items()})
    return line


def _simplify(value: Any) -> Any:
    return value if isinstance(value, str | int | None) else _describe(value)


def _describe(value: Any) -> str:
    return mask_urls(value if isinstance(value, str) else repr(value))


def _cut(value: Any) -> str:
    text = _describe(value)
    if len(text) <= _CUT_VALUE_CHARACTERS:
        return text
    return f"{text[:_CUT_VALUE_CHARACTERS]}… ({len(text)} characters)"


# ASCII only: no text can hold a line's end, steer a terminal or fail to be encoded.
_encode: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_describe
).encode


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape line ends and terminal controls; the lines of a traceback are indented instead."""
    for key, value in event.items():
        if key in {"exception", "stack"} and isinstance(value, str):
            event[key] = "\n".join("    " + _escape(line) for line in value.splitlines())
        elif not isinstance(value, int | float | None):
            event[key] = _escape(_describe(value))
    return event


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
