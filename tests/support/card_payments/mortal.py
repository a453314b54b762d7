"""A provider in whose calls a worker dies, or stands still, before or after the provider did what it was asked."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tokenyard_billing.payments.ports import PaymentProvider


class Died(BaseException):
    """The process is gone: nothing catches this, and nothing is tidied up."""


def dying(provider: PaymentProvider, call: str, *, before: bool) -> PaymentProvider:
    """Return a provider that ends its caller at the first `call`."""

    async def die() -> None:
        raise Died(call)

    return _Interrupted(provider, call, die, before=before)


def standing_still(provider: PaymentProvider, call: str, reached: asyncio.Event, go_on: asyncio.Event) -> Any:
    """Return a provider whose first `call` waits, once it was answered, for `go_on`."""

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    return _Interrupted(provider, call, wait, before=False)


class _Interrupted:
    def __init__(
        self, provider: PaymentProvider, call: str, interrupt: Callable[[], Awaitable[None]], *, before: bool
    ) -> None:
        self._provider = provider
        self._call = call
        self._interrupt: Callable[[], Awaitable[None]] | None = interrupt
        self._before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._provider, name)
        return found if name != self._call or self._interrupt is None else self._interrupted(found)

    def _interrupted(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def interrupted(*given: Any) -> Any:
            interrupt, self._interrupt = self._interrupt, None
            assert interrupt is not None
            if self._before:
                await interrupt()
            answer = await call(*given)
            await interrupt()
            return answer

        return interrupted
