"""Parts that start together: the first failure ends the rest, and is what the operator reads."""

import asyncio

import pytest

from tokenyard.stack.installation import StackFailed
from tokenyard.stack.startup import together


async def test_the_first_failure_is_raised_as_it_is_and_ends_the_others() -> None:
    ended: list[str] = []

    async def goes_on() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.append("goes on")

    async def fails() -> None:
        raise StackFailed("the disk is full")

    with pytest.raises(StackFailed, match="the disk is full"):
        await together(goes_on(), together(fails(), goes_on()))
    assert ended == ["goes on", "goes on"]
