"""Every reason that this version gives is reached: the real engine writes a row with it."""

import pytest

from app.domain.catalogue import all_reasons
from tests.support.homes import Home
from tests.support.scenes import SCENES, open_scene


def test_every_reason_in_use_has_its_scene() -> None:
    """Each reason of the catalogue has a scene for each status that it can come with."""
    told = {
        (reason, status) for reason, entry in all_reasons().items() for status in entry.statuses
    }

    assert set(SCENES) == told


@pytest.mark.parametrize(("reason", "status"), SCENES)
async def test_a_reason_is_reached(home: Home, reason, status):
    """The engine gives an execution this reason with this status."""
    plot = SCENES[reason, status]
    async with open_scene(home, *plot.outcomes, at=plot.at) as scene:
        await plot.play(scene)
        await scene.row(reason, status)
