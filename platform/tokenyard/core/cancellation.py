"""Lets what runs for ever end when it is told to."""

import asyncio


def is_cancelled() -> bool:
    """Tell whether the running task was told to end, also where the error that says so was lost on its way.

    Before Python 3.12 `asyncio.wait_for` loses a cancellation that comes as what it waits for ends; redis-py sends
    every command through it. So a loop without an end asks this in each round.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
