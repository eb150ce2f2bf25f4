import pytest

from app.core.spelling import is_one_slip_away, nearest


@pytest.mark.parametrize(
    "word",
    ["DATABSE_URL", "DATABASE_URLS", "DATABASE_URI", "DATABASE_RUL", "database_url"],
)
def test_one_slip(word):
    """One letter missing, too many, wrong or swapped, or another case, is one slip."""
    assert is_one_slip_away(word, "DATABASE_URL")


@pytest.mark.parametrize("word", ["DATABSE_RUL", "DATABASE", "PG_DATABASE_URL", "", "DATABASE_LRU"])
def test_more_than_one_slip(word):
    """Two slips, or other words, are not one slip."""
    assert not is_one_slip_away(word, "DATABASE_URL")


def test_nearest():
    """The nearest name is found whatever the case, in its own spelling; a far word has none."""
    assert nearest("asia/tokio", ["Asia/Tokyo", "Asia/Seoul"]) == "Asia/Tokyo"
    assert nearest("zzz", ["Asia/Tokyo"]) is None
