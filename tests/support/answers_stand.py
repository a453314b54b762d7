"""A gateway that keeps answers in a real database, and the clients of two organizations and two projects."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from openai import AsyncOpenAI
from redis.asyncio import Redis
from sqlalchemy import func, select

from support.fakes.admission_requests import principal
from support.fakes.gateway_ports import BASE
from support.fakes.scripted_server import ScriptedServer
from support.gateway_stack import KEY, OTHER_KEY, GatewayStack, gateway_stack
from support.servers.asgi import running
from tokenyard.core.clock import Clock, SystemClock
from tokenyard.core.ids import ProjectId
from tokenyard.core.replica import Replica
from tokenyard.gateway.endpoints.responses.replay import ResponseReplay
from tokenyard.responses.content import ContentCipher
from tokenyard.responses.conversations import ConversationStore
from tokenyard.responses.event_streams import ResponseStreams
from tokenyard.responses.keeper import AnswerKeeper
from tokenyard.responses.operator_store import AnswerOperatorStore
from tokenyard.responses.store import AnswerStore
from tokenyard.responses.tables import AnswerRow
from tokenyard.responses.tenant_routes import chat_completion_router, response_router
from tokenyard.storage.database import Database

PROJECT_KEY = "ty-project"
RETENTION_MS = 30 * 86_400_000
QUOTA_BYTES = 1024 * 1024
CIPHER = ContentCipher([bytes(32)])


def answer_store(database: Database, clock: Clock) -> AnswerStore:
    return AnswerStore(database, clock, CIPHER, retention_ms=RETENTION_MS)


def answer_keeper(database: Database, clock: Clock, *, quota_bytes: int = QUOTA_BYTES) -> AnswerKeeper:
    conversations = ConversationStore(database, clock, CIPHER, retention_ms=RETENTION_MS)
    leases = AnswerOperatorStore(database, clock, retention_ms=RETENTION_MS)
    return AnswerKeeper(answer_store(database, clock), conversations, leases, CIPHER, quota_bytes=quota_bytes)


@dataclass
class AnswersStand:
    """`client` and `project` belong to one organization, `stranger` to another."""

    gateway: GatewayStack
    database: Database
    store: AnswerStore
    client: AsyncOpenAI
    project: AsyncOpenAI
    stranger: AsyncOpenAI

    async def kept(self) -> int:
        """Return how many answers are in SQL."""
        async with self.database.reading() as session:
            return int(await session.scalar(select(func.count()).select_from(AnswerRow)) or 0)

    @asynccontextmanager
    async def scripted(self, server: ScriptedServer) -> AsyncIterator[ScriptedServer]:
        """Let `server` be the only replica."""
        async with running(server) as url:
            self.gateway.replicas.listed = [Replica("scripted", BASE.id, url)]
            yield server


@asynccontextmanager
async def answers_stand(
    redis: Redis,
    database: Database,
    folder: Path,
    *,
    quota_bytes: int = QUOTA_BYTES,
    stalled_s: float = 30.0,
) -> AsyncIterator[AnswersStand]:
    store = answer_store(database, SystemClock())
    keeper = answer_keeper(database, SystemClock(), quota_bytes=quota_bytes)
    routers = response_router(store, ResponseStreams(store, ResponseReplay)), chat_completion_router(store)
    running = gateway_stack(redis, folder, replicas=2, answers=keeper, routers=routers, stalled_s=stalled_s)
    async with keeper, running as gateway:
        gateway.keys.tenants[PROJECT_KEY] = msgspec.structs.replace(principal(), project=ProjectId("proj_second"))
        url = f"{gateway.url}/v1"
        async with (
            AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client,
            AsyncOpenAI(api_key=PROJECT_KEY, base_url=url, max_retries=0) as project,
            AsyncOpenAI(api_key=OTHER_KEY, base_url=url, max_retries=0) as stranger,
        ):
            yield AnswersStand(gateway, database, store, client, project, stranger)
