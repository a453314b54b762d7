"""A whole gateway for tests that sells what another company's server answers, and can fall back to it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from redis.asyncio import Redis

from support.fakes.gateway_ports import BASE
from support.fakes.rate_cards import SHIPPED_MODEL
from support.fakes.server_elsewhere import KEY_THERE, THERE, ServerElsewhereFake, running_elsewhere
from support.gateway_stack import SALT_SECRET, GatewayStack, gateway_stack
from support.servers.certificates import make_certificate
from tokenyard.clients.server_elsewhere import ElsewhereClient
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.models import BaseModel
from tokenyard.gateway.elsewhere.server_relay import ServerRelay

FALLBACK = "stand-in"
SOLD = BASE.id
MODELS = (SOLD, FALLBACK, SHIPPED_MODEL)


@dataclass
class ElsewhereStack:
    """A gateway and the server elsewhere that its one model is answered by."""

    gateway: GatewayStack
    server: ServerElsewhereFake
    url: str

    def sell(self, **changes: object) -> None:
        """Let the server answer for the model; `changes` are fields of its `ServerSource`."""
        self.gateway.models.base = msgspec.structs.replace(
            self.gateway.models.base, server=self._source(**changes), max_lora_rank=0
        )

    def fall_back(self, **changes: object) -> None:
        """Let the server stand in for the model's replicas; `changes` are fields of the fallback's `ServerSource`."""
        other = msgspec.structs.replace(BASE, id=FALLBACK, server=self._source(**changes), max_lora_rank=0)
        self.gateway.models.base = msgspec.structs.replace(BASE, fallback=other)

    def set_base(self, **changes: object) -> BaseModel:
        """Change fields of the model."""
        self.gateway.models.base = msgspec.structs.replace(self.gateway.models.base, **changes)
        return self.gateway.models.base

    def _source(self, **changes: object) -> ServerSource:
        return msgspec.structs.replace(ServerSource(url=self.url, model=THERE), **changes)


def told_outside(gateway: GatewayStack, text: str) -> Iterator[str]:
    """Yield what a client must never see of the server, where it stands in `text`."""
    yield from (word for word in (THERE, KEY_THERE, "org-the-operators", "Their cloud", "127.0.0.1") if word in text)


@asynccontextmanager
async def elsewhere_stack(redis: Redis, folder: Path) -> AsyncIterator[ElsewhereStack]:
    """Run both; they speak with TLS. Until a test says otherwise, the model is sold as it is."""
    certificate, server = make_certificate(folder), ServerElsewhereFake()
    async with (
        running_elsewhere(server, certificate) as url,
        ElsewhereClient(tls=certificate.trusted()) as client,
        gateway_stack(
            redis,
            folder,
            elsewhere=ServerRelay(client, dict.fromkeys(MODELS, KEY_THERE), user_secret=SALT_SECRET),
        ) as gateway,
    ):
        stack = ElsewhereStack(gateway, server, url)
        stack.sell()
        yield stack
