"""A request that holds an idempotency key: it runs on without its client, and what comes of it is kept."""

import asyncio
import logging
from contextlib import ExitStack

from redis.exceptions import RedisError

from tokenyard.core.ids import OrganizationId
from tokenyard.gateway.idempotency.encryption import ReplyCipher
from tokenyard.gateway.idempotency.exchange import KeyedExchange
from tokenyard.gateway.idempotency.recording import ReplyRecorder
from tokenyard.gateway.idempotency.store import IdempotencyStore, KeyedRequest

KEEP_LIMIT_S = 30.0
KEEP_INTERVAL_S = 1.0

_LOG = logging.getLogger(__name__)


class KeyedRun:
    """`async with` around the request. Where it ends before its client was sent anything, the key is free again;
    otherwise never within 24 hours, whether its reply could be kept or not.
    """

    def __init__(
        self,
        store: IdempotencyStore,
        cipher: ReplyCipher,
        organization: OrganizationId,
        keyed: KeyedRequest,
        exchange: KeyedExchange,
        *,
        renewal_s: float,
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._organization = organization
        self._keyed = keyed
        self._client, self._place, self._telemetry = exchange
        self._renewal_s = renewal_s
        self._outcome: str | None = None
        self._diversion = ExitStack()
        self._renewing = asyncio.Lock()

    async def __aenter__(self) -> None:
        client = self._client
        self._recorder = ReplyRecorder(client.send, may_keep=self._place.has_room, at_end=self._try_to_keep)
        self._diversion.enter_context(client.diverted(self._recorder.send))
        self._renewal = asyncio.create_task(self._renew())

    async def __aexit__(self, *_raised: object) -> None:
        self._diversion.close()
        async with self._renewing:  # a renewal must not come after what follows
            self._renewal.cancel()
        try:
            if not self._client.started:
                await self._store.forget(self._organization, self._keyed)
                self._outcome = "freed"
            elif self._outcome is None:
                await self._keep_soon()
        except RedisError as error:
            _LOG.error("the idempotency key of request %s is left to its lease: %s", self._keyed.request, error)
        self._telemetry.kept(self._outcome or "lost")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renewal_s)
            try:
                async with self._renewing:
                    await self._store.renew(self._organization, self._keyed)
            except RedisError as error:
                _LOG.warning("the idempotency key of request %s is not renewed: %s", self._keyed.request, error)

    async def _try_to_keep(self) -> None:
        """Keep the reply before its client has the end of it, so that it can be had at once by who comes back."""
        try:
            await self._keep()
        except RedisError as error:
            _LOG.warning("the reply to request %s is not kept yet: %s", self._keyed.request, error)

    async def _keep_soon(self) -> None:
        """Keep the reply when Redis comes back; until then nobody else can take the key either."""
        loop = asyncio.get_running_loop()
        until = loop.time() + KEEP_LIMIT_S
        while True:
            try:
                await self._keep()
                return
            except RedisError:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(KEEP_INTERVAL_S)

    async def _keep(self) -> None:
        organization, keyed = self._organization, self._keyed
        reply = self._recorder.reply(keyed.request)
        encrypted = b"" if reply is None else await self._cipher.encrypt(organization, keyed.name, reply.packed())
        self._outcome = await self._store.keep(organization, keyed, encrypted)
