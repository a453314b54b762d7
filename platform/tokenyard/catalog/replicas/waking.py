"""The worker wakes models that sleep: it asks Serve for what gateways wait for, until a replica answers."""

import asyncio
import logging

from redis.exceptions import RedisError

from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.ports import ReplicaControl, ServeTargets
from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.core.errors import Unavailable
from tokenyard.core.replica import Replica, ReplicaLost

_LOG = logging.getLogger(__name__)
SERVE_TIMEOUT_S = 3.0
ASKED_FOR_S = 3.0
"""After so long it is asked anew: Serve may have lost the request, and other models may be called for by now."""


class Waking:
    """Any number of workers may do this, and nothing is remembered between steps: a request more does no harm.

    Serve starts a replica for a request that waits in its proxy, and ends none meanwhile.
    """

    def __init__(
        self,
        bases: BaseModels,
        serve: ServeTargets,
        replicas: ReplicaControl,
        registry: ReplicaRegistry,
        asked_for_s: float = ASKED_FOR_S,
    ) -> None:
        self._bases = bases
        self._serve = serve
        self._replicas = replicas
        self._registry = registry
        self._asked_for_s = asked_for_s

    async def step(self) -> None:
        """Ask for each model that is called for and has no replica."""
        try:
            sleepers = [model.id for model in self._bases.all() if model.waking is not None]
            called_for = await self._registry.called_for(sleepers)
            if not called_for:
                return
            async with asyncio.timeout(SERVE_TIMEOUT_S):
                proxies = {one.model: one for one in await self._serve.proxies()}
        except (RedisError, Unavailable, TimeoutError) as error:
            _LOG.warning("models cannot be woken: %s", error)
            return
        await asyncio.gather(*(self._ask(proxies[model]) for model in called_for if model in proxies))

    async def _ask(self, proxy: Replica) -> None:
        _LOG.info("waking %s", proxy.model)
        try:
            async with asyncio.timeout(self._asked_for_s):
                await self._replicas.stats(proxy)
        except TimeoutError:
            return  # it starts
        except ReplicaLost as error:
            _LOG.warning("%s cannot be woken: %s", proxy.model, error)
