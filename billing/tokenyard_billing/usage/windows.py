"""The buckets of time that one page of usage has, and where the next page begins."""

import math
from collections.abc import Sequence
from typing import Self

import msgspec
from pydantic import BaseModel, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard_billing.periods import DAY_MS, HOUR_MS

WIDTHS_MS = {"1h": HOUR_MS, "1d": DAY_MS}
_PAGE_PREFIX = "page_"


class Window(msgspec.Struct, frozen=True):
    """Buckets of `width_ms`, the first at `start_ms`; `next_ms` is where the next page begins, None on the last."""

    start_ms: int
    width_ms: int
    count: int
    next_ms: int | None = None

    @classmethod
    def page(cls, start_s: int, end_s: int, page: str | None, *, width_ms: int, limit: int) -> Self:
        """Return up to `limit` buckets between two unix times, from `page` on; another one raises `InvalidRequest`."""
        start_ms = start_s * 1000 // width_ms * width_ms
        if page is not None:
            start_ms = max(start_ms, _read_page(page) // width_ms * width_ms)
        count = max(0, -(-(end_s * 1000 - start_ms) // width_ms))
        return cls(start_ms, width_ms, min(count, limit), start_ms + limit * width_ms if count > limit else None)

    @classmethod
    def whole(cls, start_s: int, end_s: int) -> Self:
        """Return one bucket of all hours between two unix times."""
        hours = cls.page(start_s, end_s, None, width_ms=HOUR_MS, limit=10**9)
        return cls(hours.start_ms, max(1, hours.count) * HOUR_MS, min(1, hours.count))

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.count * self.width_ms

    @property
    def starts_ms(self) -> Sequence[int]:
        return range(self.start_ms, self.end_ms, self.width_ms)

    @property
    def next_page(self) -> str | None:
        return None if self.next_ms is None else f"{_PAGE_PREFIX}{self.next_ms}"

    def until(self, end_ms: int) -> Self:
        """Return the buckets before `end_ms`; the next page begins there."""
        return msgspec.structs.replace(self, count=(end_ms - self.start_ms) // self.width_ms, next_ms=end_ms)


class SpanQuery(BaseModel):
    """Which time is asked for, in unix seconds; without an end it is up to now."""

    start_time: int = Field(ge=0, le=10**10)
    end_time: int | None = Field(default=None, ge=0, le=10**10)
    page: str | None = Field(default=None, max_length=64, description="`next_page` of the page before.")

    def end_s(self, now_ms: int) -> int:
        return math.ceil(now_ms / 1000) if self.end_time is None else self.end_time

    def buckets(self, now_ms: int, *, width_ms: int, limit: int) -> Window:
        """Return at most `limit` buckets. Raises as `Window.page` does."""
        return Window.page(self.start_time, self.end_s(now_ms), self.page, width_ms=width_ms, limit=limit)


def _read_page(page: str) -> int:
    number = page.removeprefix(_PAGE_PREFIX)
    if number == page or not (number.isascii() and number.isdigit()) or len(number) > 16:
        raise InvalidRequest("This is not a page that we gave.", param="page")
    return int(number)
