"""An engine that hangs is noticed, and one that is slow is not taken for it."""

import asyncio

import pytest

from tokenyard_deployments.serving.watchdog import Watchdog

SILENCE_S = 0.08
LONG_S = 6 * SILENCE_S


class Engine:
    """Gives a sign of life whenever told, and answers probes where it can."""

    def __init__(self) -> None:
        self.last_sign = asyncio.get_running_loop().time()
        self.probes = 0
        self.answers = True
        self.dead = False

    def step(self) -> None:
        self.last_sign = asyncio.get_running_loop().time()

    async def probe(self) -> None:
        self.probes += 1
        if self.dead:
            raise RuntimeError("the engine has ended")
        if not self.answers:
            await asyncio.Event().wait()
        self.step()


@pytest.fixture
async def engine() -> Engine:
    return Engine()


def watch(engine: Engine, busy_since: float | None = 0.0) -> "asyncio.Task[None]":
    now = asyncio.get_running_loop().time
    return asyncio.create_task(Watchdog(engine, lambda: busy_since, SILENCE_S, now).until_hung())


async def ends(watching: "asyncio.Task[None]") -> bool:
    done, _ = await asyncio.wait([watching], timeout=LONG_S)
    watching.cancel()
    return bool(done)


async def test_an_engine_that_answers_nothing_hangs(engine: Engine) -> None:
    engine.answers = False
    assert await ends(watch(engine))
    assert engine.probes == 1


async def test_one_without_work_may_be_silent(engine: Engine) -> None:
    engine.answers = False
    assert not await ends(watch(engine, busy_since=None))
    assert engine.probes == 0


async def test_one_whose_work_came_just_now_is_not_asked_yet(engine: Engine) -> None:
    engine.answers = False
    assert not await ends(watch(engine, busy_since=asyncio.get_running_loop().time() + LONG_S))
    assert engine.probes == 0


async def test_one_that_answers_the_probe_is_well(engine: Engine) -> None:
    assert not await ends(watch(engine))
    assert engine.probes >= 1


async def test_one_that_steps_but_has_no_time_for_the_probe_is_well(engine: Engine) -> None:
    engine.answers = False
    watching = watch(engine)
    while not engine.probes:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    engine.step()
    await asyncio.sleep(SILENCE_S * 1.1)
    assert not watching.done()
    watching.cancel()


async def test_one_that_has_ended_is_left_to_others(engine: Engine) -> None:
    engine.dead = True
    assert not await ends(watch(engine))
    assert engine.probes >= 1
