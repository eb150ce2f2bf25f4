import pytest

from app.core.redaction import mask_password, mask_secrets, mask_urls


@pytest.mark.parametrize(
    "key",
    [
        *("Authorization", "proxy-authorization", b"Authorization", "Set-Cookie", "access_token"),
        *("client_secret", "PASSWORD", "passwd", "api_key", "X-Api-Key", "apikey", "credentials"),
    ],
)
def test_keys_that_hold_secrets(key):
    """What a secret key holds is masked, whatever its type, case or surroundings."""
    assert mask_secrets({key: ["hunter2"]}) == {key: "***"}


@pytest.mark.parametrize("key", ["job_id", "idempotency_key", "author", 1, "key"])
def test_keys_that_hold_none(key):
    """Other keys keep their values."""
    assert mask_secrets({key: "x"}) == {key: "x"}


def test_nested_values():
    """Mappings in sequences in mappings are masked, and pairs are judged by their first member."""
    value = {"a": [{"token": "x"}, ("Cookie", "x"), ("n", 1), ("a", "b", "c"), {"b": None}]}
    masked = {"a": [{"token": "***"}, ["Cookie", "***"], ["n", 1], ["a", "b", "c"], {"b": None}]}
    assert mask_secrets(value) == masked
    assert value["a"][0] == {"token": "x"}


def test_a_value_that_contains_itself():
    """A value that contains itself is cut instead of followed for ever."""
    value: dict[str, object] = {}
    value["self"] = value
    assert str(mask_secrets(value)).count("self") == 8


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://u:p@h/x", "https://***@h/x"),
        ("see https://token@h and http://a:b@c", "see https://***@h and http://***@c"),
        ("postgresql+asyncpg://u:p/w#?@h/d", "postgresql+asyncpg://***@h/d"),
        ("https://h/x?a=1&api_key=s&b=2#f", "https://h/x?a=1&api_key=***&b=2#f"),
        ("https://h/?token=it's;so x", "https://h/?token=*** x"),
        ("https://h:8080/a@b?c=d@e", "https://h:8080/a@b?c=d@e"),
        ("me@example.com", "me@example.com"),
    ],
)
def test_credentials_in_urls(text, masked):
    """User information and secret query values of URLs are masked, the rest is left."""
    assert mask_urls(text) == masked
    assert mask_secrets([text.encode()]) == [masked]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", ["postgres://", "?", "?token", "token", ";a", "a://b:"])
def test_hostile_texts_cost_little(part):
    """No text of a megabyte makes the search for credentials take noticeably long."""
    text = "://=&" + part * (1_000_000 // len(part))
    assert mask_urls(text) == text


def test_a_database_address_keeps_its_user():
    """Only the password of a database address is masked, so that the user can be checked."""
    assert mask_password("postgresql://me:p/w#@h/d") == "postgresql://me:***@h/d"
    assert mask_password("postgresql://me@h/d") == "postgresql://me@h/d"
