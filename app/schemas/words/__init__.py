"""Schedules in words, English and Japanese: what people read where they do not want to parse.

``reading.py`` takes a rule apart, ``sequences.py`` groups what it finds, and ``english.py`` and
``japanese.py`` each write a sentence in their own order. Texts are exact: rules that mean
different times do not share one.
"""

from app.domain.schedule import Schedule
from app.schemas.words import english, japanese


def describe_schedule(schedule: Schedule) -> dict[str, str]:
    """Describe a valid schedule in each language."""
    return {
        "en": english.describe_schedule(schedule),
        "ja": japanese.describe_schedule(schedule),
    }
