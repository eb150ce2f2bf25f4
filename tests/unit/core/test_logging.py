import io
import json
import logging
import threading
import warnings

import hypothesis
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.core.config import LogFormat, LogLevel
from app.core.logging import _QUIET_LOGGERS, configure_logging, lines_together


@pytest.fixture(autouse=True)
def _restored_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _BreakingStream(io.StringIO):
    """A stream on a full disk, until it is repaired."""

    broken = True

    def flush(self):
        if self.broken:
            raise OSError(28, "No space left on device")


def _configure(stream, *, level=LogLevel.INFO, log_format=LogFormat.JSON):
    configure_logging(level, log_format, stream=stream)
    return structlog.get_logger("app.engine.tick")


def _one_event(**values):
    stream = io.StringIO()
    _configure(stream).info("tick.committed", **values)
    (line,) = stream.getvalue().splitlines()
    return json.loads(line)


def _fail_with(message):
    raise ValueError(message)


def _console_text(log_call):
    stream = io.StringIO()
    log_call(_configure(stream, log_format=LogFormat.CONSOLE))
    return stream.getvalue()


def test_a_json_line():
    """A line is one JSON object: UTC time, level, logger and event first, then the keys."""
    event = _one_event(job_id="a", runs=3)
    assert list(event) == ["timestamp", "level", "logger", "event", "job_id", "runs"]
    assert event["timestamp"].endswith("Z")
    assert event | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "logger": "app.engine.tick",
        "event": "tick.committed",
        "job_id": "a",
        "runs": 3,
    }


@hypothesis.settings(max_examples=50)
@given(st.text(alphabet=st.characters()))
def test_no_text_forges_a_line(text):
    """Whatever a user's text holds, it stays one line of ASCII and comes back unchanged."""
    stream = io.StringIO()
    _configure(stream).info("job.created", name=text, plain="x")
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 1
    assert json.loads(stream.getvalue())["name"] == text


def test_secrets_are_masked():
    """Secret keys at any depth, and credentials in URLs of values and events, are masked."""
    stream = io.StringIO()
    _configure(stream).info(
        "saw https://u:hunter2@h/",
        password="hunter2",
        headers={"Authorization": "hunter2", "n": 1},
        pairs=[("Cookie", "hunter2")],
        url="https://h/?token=hunter2",
        thing={"set": {"https://u:hunter2@h/"}},
    )
    assert "hunter2" not in stream.getvalue()
    event = json.loads(stream.getvalue())
    assert event["headers"] == {"Authorization": "***", "n": 1}
    assert event["event"] == "saw https://***@h/"


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
def test_secrets_in_objects(log_format):
    """An object is logged as its repr, in one line and without the credentials of URLs in it."""

    class Thing:
        def __repr__(self):
            return "Thing(https://u:hunter2@h/)\nforged"

    stream = io.StringIO()
    _configure(stream, log_format=log_format).info("x", thing=Thing(), things=[Thing()])
    (line,) = stream.getvalue().splitlines()
    assert line.count("Thing(https://***@h/)") == 2
    assert "hunter2" not in line


def test_request_ids():
    """What is bound to the context, such as a request's id, is on every line, of libraries too."""
    stream = io.StringIO()
    log = _configure(stream)
    structlog.contextvars.bind_contextvars(request_id="r1")
    log.info("job.created")
    logging.getLogger("library").warning("x")
    assert [json.loads(line)["request_id"] for line in stream.getvalue().splitlines()] == ["r1"] * 2


def test_levels():
    """Lines below the level are not written, ours or a library's."""
    stream = io.StringIO()
    log = _configure(stream, level=LogLevel.ERROR)
    log.warning("no")
    logging.getLogger("library").warning("no")
    log.error("yes")
    logging.getLogger("library").error("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes", "yes"]


def test_a_library_speaks_in_the_same_shape():
    """A line of the standard library's logging has the same keys in the same order."""
    stream = io.StringIO()
    _configure(stream)
    logging.getLogger("uvicorn.error").info("Listening on %s", "http://u:p@h\nx")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert list(event) == ["timestamp", "level", "logger", "event"]
    assert event["event"] == "Listening on http://***@h\nx"
    assert (event["level"], event["logger"]) == ("info", "uvicorn.error")


@pytest.mark.parametrize(
    "name",
    ["apscheduler.scheduler", "alembic.runtime.migration", "uvicorn.access"],
)
@pytest.mark.parametrize("level", [LogLevel.DEBUG, LogLevel.INFO])
def test_chatty_libraries(name, level):
    """What libraries say about themselves below WARNING is left out at every level."""
    stream = io.StringIO()
    _configure(stream, level=level)
    logging.getLogger(name).info("Running job")
    assert stream.getvalue() == ""
    logging.getLogger(name).warning("Missed job")
    assert json.loads(stream.getvalue())["event"] == "Missed job"


def test_handlers_of_uvicorn():
    """Handlers that uvicorn gave its loggers are taken away, so that nothing is logged twice."""
    stream = io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(stream))
    _configure(stream)
    logging.getLogger("uvicorn.error").error("x")
    assert len(stream.getvalue().splitlines()) == 1


def test_warnings_are_lines():
    """A Python warning becomes a line instead of text on stderr."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        _configure(stream)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    event = json.loads(stream.getvalue())
    assert event["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in event["event"]


@pytest.mark.parametrize("name", [None, "library"])
def test_an_exception_is_one_field(name):
    """An exception is one structured field without local variables, whoever logs it."""
    stream = io.StringIO()
    log = logging.getLogger(name) if name else _configure(stream)
    if name:
        _configure(stream)
    try:
        _fail_with("https://u:hunter2@h/")
    except ValueError:
        log.exception("pass.failed")
    (line,) = stream.getvalue().splitlines()
    assert "hunter2" not in line
    (exception,) = json.loads(line)["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "https://***@h/")
    assert "locals" not in exception["frames"][0]


def test_values_that_are_not_json():
    """NaN, keys that are no text and lone surrogates still make a line of valid JSON."""
    event = _one_event(ratio=float("nan"), attempt=1)
    assert (event["ratio"], event["attempt"]) == ("nan", 1)
    assert _one_event(by_id={("a", 1): "x"})["by_id"] == "{('a', 1): 'x'}"
    assert _one_event(text="\ud800")["text"] == "\ud800"


def test_a_huge_value():
    """A line beyond 64 KiB has its long values cut, and says how long they were."""
    event = _one_event(body="x" * 100_000, job_id="a")
    assert event["body"] == "x" * 1000 + "… (100000 characters)"
    assert event["job_id"] == "a"


def test_console_lines():
    """The console form keeps one line per event and escapes what could steer the terminal."""
    text = _console_text(lambda log: log.info("job.created", name="a\n\x1b[31mforged", n=1))
    (line,) = text.splitlines()
    assert "\x1b" not in line
    assert "job.created" in line
    assert "n=1" in line


def test_a_console_traceback_is_indented():
    """The lines of a traceback are indented and escaped, so that no message passes for a line."""

    def log_one(log):
        try:
            _fail_with("x\n2026-01-01 [info] forged\x1b[31m")
        except ValueError:
            log.exception("pass.failed")

    first, *rest = _console_text(log_one).splitlines()
    assert "pass.failed" in first
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest)


def test_console_secrets():
    """Secrets are masked in the console form too."""
    text = _console_text(lambda log: log.info("x", token="hunter2", url="https://u:hunter2@h/"))
    assert "hunter2" not in text


def test_auto_follows_the_stream(monkeypatch):
    """Chosen by itself, the form is console on a terminal, in colour unless NO_COLOR, else JSON."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, file = _Terminal(), io.StringIO()
    _configure(terminal, log_format=LogFormat.AUTO).info("x")
    _configure(file, log_format=LogFormat.AUTO).info("x")
    assert "\x1b[" in terminal.getvalue()
    assert json.loads(file.getvalue())["event"] == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = _Terminal()
    _configure(terminal, log_format=LogFormat.AUTO).info("x")
    assert "\x1b[" not in terminal.getvalue()


def test_a_stream_that_lacks_a_letter():
    """What the stream's encoding lacks is escaped instead of losing the line."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    _configure(stream, log_format=LogFormat.CONSOLE).info("x", name="日本")
    assert b"\\u65e5\\u672c" in raw.getvalue()


class _CountingStream(io.StringIO):
    """Counts what it is given."""

    writes = 0

    def write(self, text):
        self.writes += 1
        return super().write(text)


def _events(stream):
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def test_lines_of_a_block_go_together():
    """They come at its end, in their order and in one go, whoever logs; later ones at once."""
    stream = _CountingStream()
    log = _configure(stream)
    with lines_together():
        log.info("one")
        with lines_together():
            logging.getLogger("library").warning("two")
        assert stream.getvalue() == ""
    assert (_events(stream), stream.writes) == (["one", "two"], 1)
    log.info("three")
    assert _events(stream) == ["one", "two", "three"]


def test_lines_of_a_block_that_fails_are_kept():
    """What was logged before something was raised shows why."""
    stream = io.StringIO()
    log = _configure(stream)

    def fail():
        with lines_together():
            log.info("one")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    log.info("two")
    assert _events(stream) == ["one", "two"]


def test_lines_of_other_threads_do_not_wait():
    """Only the block's own thread holds its lines back."""
    stream = io.StringIO()
    log = _configure(stream)
    with lines_together():
        log.info("mine")
        other = threading.Thread(target=log.info, args=("theirs",))
        other.start()
        other.join()
        assert _events(stream) == ["theirs"]
    assert _events(stream) == ["theirs", "mine"]


def test_a_full_disk_below_a_block():
    """Each line of a block that is lost counts."""
    stream = _BreakingStream()
    log = _configure(stream)
    with lines_together():
        log.info("one")
        log.info("two")
    stream.broken = False
    log.info("three")
    assert json.loads(stream.getvalue().splitlines()[-1])["lines"] == 2


def test_a_full_disk():
    """A line that cannot be written raises nothing; later a line tells how many were lost."""
    stream = _BreakingStream()
    log = _configure(stream)
    log.info("one")
    logging.getLogger("library").warning("two")
    stream.broken = False
    log.info("three")
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert (last["event"], last["lines"]) == ("log.lines_lost", 2)


def test_a_closed_stream():
    """A line for a stream that is closed raises nothing."""
    stream = io.StringIO()
    log = _configure(stream)
    stream.close()
    log.info("x")
    assert stream.closed
