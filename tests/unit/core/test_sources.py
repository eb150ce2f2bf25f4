import pytest

from app.core.sources import EmptyText, Origin, gather

NAMES = {
    "DATABASE_URL": EmptyText.REFUSED,
    "PORT": EmptyText.NOT_GIVEN,
    "MYSCHEDULER_ROOT_PATH": EmptyText.VALUE,
}


def _collect(environ=None, *, env_file=None, flags=None):
    return gather(environ or {}, env_file=env_file, flags=flags or {}, names=NAMES)


def _texts_of(gathered):
    return {name: one.text for name, one in gathered.given.items()}


def test_texts_are_stripped():
    """Blanks and line ends around a text are not part of it."""
    assert _texts_of(_collect({"PORT": " 1\n"})) == {"PORT": "1"}


def test_a_name_and_its_file_both_given(tmp_path):
    """NAME and NAME_FILE in one source are a problem."""
    gathered = _collect({"PORT": "1", "PORT_FILE": str(tmp_path / "x")})
    assert gathered.problems == ["PORT and PORT_FILE are both given; remove one of them"]


def test_a_later_source_overrides_either_form(tmp_path):
    """NAME_FILE in the environment overrides NAME in .env."""
    (tmp_path / "secret").write_text("2")
    (tmp_path / ".env").write_text("PORT=1\n")
    gathered = _collect({"PORT_FILE": str(tmp_path / "secret")}, env_file=tmp_path / ".env")
    assert (gathered.problems, _texts_of(gathered)) == ([], {"PORT": "2"})


def test_a_secret_file_with_a_byte_order_mark(tmp_path):
    """The mark that some editors put first, and blanks around, are no part of a text."""
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf  1 \r\n")
    assert _texts_of(_collect({"PORT_FILE": str(tmp_path / "secret")})) == {"PORT": "1"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "which cannot be read: No such file or directory"),
        (b"\xff\xfe", "which cannot be read: it is not UTF-8 text"),
        (b" \n", "which is empty; write the value into it"),
        (b"1" * 70000, "which is longer than 65536 characters"),
    ],
)
def test_a_secret_file_that_cannot_be_used(tmp_path, content, why):
    """A file that is missing, no text, empty or huge is a problem that names variable and path."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    gathered = _collect({"PORT_FILE": str(path)})
    assert gathered.problems == [f"PORT_FILE names {path}, {why}"]
    assert gathered.given == {}


def test_a_secret_in_place_of_a_path():
    """An address given as NAME_FILE is refused without repeating it: it may hold a password."""
    gathered = _collect({"DATABASE_URL_FILE": "postgresql://u:hunter2@h/d"})
    assert gathered.problems == [
        "DATABASE_URL_FILE must name a file that holds the value, and holds an address"
    ]


def test_a_path_cannot_steer_the_terminal(tmp_path):
    """Control characters of a path are escaped where it is shown."""
    path = tmp_path / "a\x1b[31m"
    path.write_text("1")
    assert "\x1b" not in _collect({"PORT_FILE": str(path)}).given["PORT"].place
    assert "\x1b" not in _collect({"PORT_FILE": str(path) + "x"}).problems[0]


def test_empty_texts():
    """Empty means not given, a value or a refusal, as each setting says."""
    gathered = _collect({"PORT": "", "MYSCHEDULER_ROOT_PATH": " ", "DATABASE_URL": ""})
    assert _texts_of(gathered) == {"MYSCHEDULER_ROOT_PATH": ""}
    assert gathered.warnings == ["PORT is empty, which counts as not given"]
    assert gathered.problems == ["DATABASE_URL is empty; give it a value, or remove it"]


def test_an_empty_file_name(tmp_path):
    """An empty NAME_FILE counts as not given and leaves an earlier source in force."""
    (tmp_path / ".env").write_text("PORT=1\n")
    gathered = _collect({"PORT_FILE": ""}, env_file=tmp_path / ".env")
    assert _texts_of(gathered) == {"PORT": "1"}
    assert gathered.warnings == ["PORT_FILE is empty, which counts as not given"]


def test_an_env_file_is_read_literally(tmp_path):
    """Quotes, comments and export are understood; ${…} in a password stays as it is."""
    (tmp_path / ".env").write_text(
        "# comment\nexport PORT=1 # comment\nDATABASE_URL='p${HOME}#x'\nPLAIN\n", encoding="utf-8"
    )
    gathered = _collect(env_file=tmp_path / ".env")
    assert _texts_of(gathered) == {"PORT": "1", "DATABASE_URL": "p${HOME}#x"}
    assert gathered.given["PORT"].origin is Origin.ENV_FILE
    assert gathered.problems == []


def test_a_broken_line_of_an_env_file(tmp_path):
    """A line that cannot be read is a problem with its number; the other lines count."""
    path = tmp_path / ".env"
    path.write_text("PORT=1\nDATABASE_URL='hunter2\n")
    gathered = _collect(env_file=path)
    assert _texts_of(gathered) == {"PORT": "1"}
    (problem,) = gathered.problems
    assert problem.startswith(f"{path}, line 2: this is not NAME=value; ")


def test_an_env_file_that_cannot_be_read(tmp_path):
    """A directory or a binary in place of .env is a problem."""
    assert _collect(env_file=tmp_path).problems == [f"{tmp_path} cannot be read: Is a directory"]
    (tmp_path / ".env").write_bytes(b"\xff")
    assert _collect(env_file=tmp_path / ".env").problems == [
        f"{tmp_path / '.env'} cannot be read: it is not UTF-8 text"
    ]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("MYSCHEDULER_ROOT_PAHT", "did you mean MYSCHEDULER_ROOT_PATH?"),
        ("MYSCHEDULER_ROOTPATH_FILE", "did you mean MYSCHEDULER_ROOT_PATH_FILE?"),
        ("myscheduler_root_path", "did you mean MYSCHEDULER_ROOT_PATH?"),
        ("MYSCHEDULER_DATABASE_URL", "did you mean DATABASE_URL?"),
        ("MYSCHEDULER_PORT", "did you mean PORT?"),
        ("MYSCHEDULER_XYZ", "`myscheduler config` lists all settings"),
    ],
)
def test_unknown_names_with_our_prefix(word, hint):
    """A name with our prefix that is no setting is a problem with the nearest right name."""
    assert _collect({word: "1"}).problems == [f"{word} is not a setting; {hint}"]


def test_an_unknown_name_in_an_env_file(tmp_path):
    """A misspelt name in .env is a problem that says where it stands."""
    (tmp_path / ".env").write_text("MYSCHEDULER_ROOT_PAHT=/x\n")
    (problem,) = _collect(env_file=tmp_path / ".env").problems
    assert problem.startswith(f"MYSCHEDULER_ROOT_PAHT (in {tmp_path / '.env'}) is not a setting")


def test_names_that_kubernetes_makes():
    """Variables by which Kubernetes announces Services called myscheduler… are no misspellings."""
    links = {
        "MYSCHEDULER_SERVICE_HOST": "10.0.0.1",
        "MYSCHEDULER_SERVICE_PORT": "80",
        "MYSCHEDULER_SERVICE_PORT_HTTP": "80",
        "MYSCHEDULER_PORT": "tcp://10.0.0.1:80",
        "MYSCHEDULER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "MYSCHEDULER_PORT_80_TCP_ADDR": "10.0.0.1",
        "MYSCHEDULER_POSTGRES_SERVICE_HOST": "10.0.0.1",
        "MYSCHEDULER_POSTGRES_PORT": "tcp://10.0.0.1:5432",
    }
    assert _collect(links).problems == []


def test_a_flag_wins_and_names_itself():
    """A flag overrides the environment and is what sentences call the setting."""
    gathered = _collect({"DATABASE_URL": "a"}, flags={"DATABASE_URL": "b"})
    assert gathered.given["DATABASE_URL"].text == "b"
    assert gathered.given["DATABASE_URL"].label == "--database-url"


def test_sentences_name_the_place(tmp_path):
    """In sentences, a text is called by its variable, with the file that holds it."""
    (tmp_path / "secret").write_text("1")
    (tmp_path / ".env").write_text("MYSCHEDULER_ROOT_PATH=/x\n")
    environ = {"PORT_FILE": str(tmp_path / "secret"), "DATABASE_URL": "x"}
    gathered = _collect(environ, env_file=tmp_path / ".env")
    assert {name: one.label for name, one in gathered.given.items()} == {
        "MYSCHEDULER_ROOT_PATH": f"MYSCHEDULER_ROOT_PATH (in {tmp_path / '.env'})",
        "PORT": f"PORT (read from {tmp_path / 'secret'})",
        "DATABASE_URL": "DATABASE_URL",
    }


def test_what_was_given_is_not_in_repr():
    """A given text stays out of repr, since it may be a secret."""
    assert "hunter2" not in repr(_collect({"DATABASE_URL": "hunter2"}))
