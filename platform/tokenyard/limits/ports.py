"""What admission in an outage stands around: `RedisAdmission`, or a Redis whose every step is in a test's hands."""

import asyncio
from typing import Protocol

from tokenyard.core.admission import AdmissionRequest, Admitted
from tokenyard.core.money import NanoDollars
from tokenyard.limits.holds import Hold
from tokenyard.metering.events import Settled


class HoldingAdmission(Protocol):
    """Admits and settles by Redis."""

    @property
    def delivered(self) -> bool:
        """Whether Redis took everything that was settled here."""
        ...

    async def admit(self, request: AdmissionRequest) -> Admitted:
        """Raise `Unavailable`, caused by a `RedisError`, where Redis does not answer."""
        ...

    def settle(self, settled: Settled, cost: NanoDollars) -> "asyncio.Future[None]": ...

    def keep(self, hold: Hold) -> None:
        """Renew a hold that Redis was not asked for, so that it takes it."""
        ...
