"""A worker of fine-tuning that dies at a call of a given number, wherever it touches the world."""

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from support.finetune.stack import FinetuneStack
from tokenyard.storage.database import Database
from tokenyard.web.loops import Loop


class Died(BaseException):
    """The worker is gone: nothing catches this."""


class Countdown:
    """Lets the worker die at the call of a given number: before its effect, or after it."""

    def __init__(self, dies_at: int | None) -> None:
        self._dies_at = dies_at
        self.calls = 0
        self.is_dead = False

    def tick(self) -> None:
        if self.is_dead:
            raise Died
        if self.calls == self._dies_at:
            self.is_dead = True
            raise Died
        self.calls += 1


class Mortal:
    """Passes every call on, and dies before or after it."""

    def __init__(self, inner: Any, countdown: Countdown) -> None:
        self._inner = inner
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in ("get", "url", "url_of", "read_stream", "engine", "is_sqlite", "reading"):
            return found
        if name == "transaction":
            return lambda: _Transaction(found(), self._countdown)

        async def call(*arguments: Any, **named: Any) -> Any:
            self._countdown.tick()
            answer = await found(*arguments, **named)
            self._countdown.tick()
            return answer

        return call


class _Transaction:
    def __init__(self, inner: Any, countdown: Countdown) -> None:
        self._inner = inner
        self._countdown = countdown

    async def __aenter__(self) -> Any:
        self._countdown.tick()
        return await self._inner.__aenter__()

    async def __aexit__(self, *error: Any) -> Any:
        result = await self._inner.__aexit__(*error)
        self._countdown.tick()
        return result


def stack_on(folder: Path, empty_sqlite: Path) -> FinetuneStack:
    """Return a stack on a new database in a new folder."""
    folder.mkdir()
    shutil.copy(empty_sqlite, folder / "test.db")
    return FinetuneStack(Database(f"sqlite+aiosqlite:///{folder / 'test.db'}"), folder)


def mortal_worker(stack: FinetuneStack, countdown: Countdown) -> Sequence[Loop]:
    """Return the loops of a worker whose every touch counts down."""
    return stack.new_worker(
        database=Mortal(stack.database, countdown),
        blobs=Mortal(stack.blobs, countdown),
        runs=Mortal(stack.cluster, countdown),
        reservations=Mortal(stack.reservations, countdown),
        adapters=Mortal(stack.catalog, countdown),
        canary=Mortal(stack.replicas, countdown),
        answers=Mortal(stack.answers, countdown),
    )


async def lives(stack: FinetuneStack, countdown: Countdown, has_ended: Callable[[], Awaitable[bool]]) -> None:
    """Let a worker go round until it dies, and then one that does not, until `has_ended`, which is asked each time."""
    worker = mortal_worker(stack, countdown)
    for _ in range(20):
        try:
            await stack.round(worker)
        except BaseException as error:
            if not _is_death(error):
                raise
            stack.outlive_leases()
            worker = stack.new_worker()
        if await has_ended():
            break


def _is_death(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_death(inner) for inner in error.exceptions)
    return isinstance(error, Died)
