"""Notices an engine that hangs: its process lives, but nothing comes out any more."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

_LOG = logging.getLogger(__name__)
_LOOKS_A_SILENCE = 8


class WatchedEngine(Protocol):
    """The engine, as far as its health goes."""

    @property
    def last_sign(self) -> float: ...

    async def probe(self) -> None: ...


class Watchdog:
    """Where there is work and no sign of life for `max_silence_s`, the engine has as long again to answer one token.

    `busy_since` tells since when requests are inside, None where there are none.
    """

    def __init__(
        self,
        engine: WatchedEngine,
        busy_since: Callable[[], float | None],
        max_silence_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._busy_since = busy_since
        self._max_silence_s = max_silence_s
        self._now = now

    async def until_hung(self) -> None:
        """Return once the engine hangs. What a probe raises tells of an engine that has ended, not of one that hangs:
        that is for others to notice.
        """
        while True:
            await asyncio.sleep(self._max_silence_s / _LOOKS_A_SILENCE)
            if self._silence_s() > self._max_silence_s and await self._stays_silent():
                return

    def _silence_s(self) -> float:
        since = self._busy_since()
        return 0.0 if since is None else self._now() - max(since, self._engine.last_sign)

    async def _stays_silent(self) -> bool:
        before = self._engine.last_sign
        _LOG.warning(
            "the engine has work and said nothing for %.0f s: it is asked to answer one token", self._silence_s()
        )
        try:
            async with asyncio.timeout(self._max_silence_s):
                await self._engine.probe()
        except TimeoutError:
            return self._engine.last_sign == before
        except Exception:
            _LOG.warning("the engine could not be asked", exc_info=True)
        return False
