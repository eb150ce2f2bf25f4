"""Why a job did or did not run at a time, in one sentence of each language.

Imports the story and its writers; called by the answer.
"""

from app.schemas.words import explaining_english, explaining_japanese
from app.schemas.words.notes import Pair
from app.schemas.words.story import Story


def tell_story(story: Story) -> Pair:
    """Write the sentence in English and in Japanese."""
    return explaining_english.tell(story), explaining_japanese.tell(story)
