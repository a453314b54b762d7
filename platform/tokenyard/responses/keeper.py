"""Keeps answers on behalf of the gateway, also while SQL is away for a while."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Self

from tokenyard.core.errors import QuotaExceeded, Unavailable
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.responses.content import Content, ContentCipher
from tokenyard.responses.conversations import ConversationStore
from tokenyard.responses.operator_store import AnswerOperatorStore
from tokenyard.responses.ports import AnswerToKeep
from tokenyard.responses.store import AnswerStore
from tokenyard.storage.outage import DatabaseDown
from tokenyard.storage.read_cache import ReadCache

ROOM_FRESH_S = 10.0
WAIT_LIMIT_S = 2.0
RETRY_S = 1.0
DRAIN_LIMIT_S = 10.0
MAX_NOTED_BYTES = 256 * 1024
MAX_UNWRITTEN_BYTES = 32 * 1024 * 1024

_Write = Callable[[OrganizationId, ProjectId, AnswerToKeep, bytes], Awaitable[None]]

_LOG = logging.getLogger(__name__)


class AnswerKeeper:
    """Use it as a context: at its end, what is not written yet is given some time.

    An answer that SQL does not take stays in memory, within a bound, until it does. An organization's room is looked
    up now and then, not for each answer, so its quota may be passed by what is stored meanwhile.
    """

    def __init__(
        self,
        store: AnswerStore,
        conversations: ConversationStore,
        leases: AnswerOperatorStore,
        cipher: ContentCipher,
        *,
        quota_bytes: int,
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._quota_bytes = quota_bytes
        self._used = ReadCache(self._load_used, fresh_s=ROOM_FRESH_S)
        self._writes: set[asyncio.Task[None]] = set()
        self._unwritten = 0
        self.renew = leases.renew
        self.conversation = conversations.conversation
        self.items = conversations.items

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._writes:
            _, left = await asyncio.wait(self._writes, timeout=DRAIN_LIMIT_S)
            for task in left:
                task.cancel()
            if left:
                _LOG.error("%d answers could not be stored", len(left))

    async def check_room(self, organization: OrganizationId) -> None:
        """Tell whether one more answer can be kept.

        Raises:
            QuotaExceeded: the organization has no room left.
            Unavailable: SQL is away, and too much waits for it already.
        """
        if self._unwritten > MAX_UNWRITTEN_BYTES:
            raise Unavailable("Answers cannot be stored right now. Please try again, or send 'store': false.")
        if (await self._used.get(organization) or 0) >= self._quota_bytes:
            raise QuotaExceeded(
                f"Your organization's stored answers have reached the limit of {self._quota_bytes} bytes. "
                "Delete some, or send 'store': false.",
                code="storage_quota_exceeded",
                param="store",
            )

    async def keep(self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep) -> None:
        """Write an answer, and wait for that for a limited time; a caller that leaves does not end it."""
        write = self._store.finish if answer.background else self._store.add
        task = asyncio.create_task(self._write(organization, project, answer, write))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        await asyncio.wait({task}, timeout=WAIT_LIMIT_S)

    async def begin(self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep) -> None:
        """Write an answer that is yet to be made; where SQL does not take it, this raises `Unavailable`."""
        await self._store.begin(organization, project, answer, await self._encrypted(answer))

    async def note(self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep) -> None:
        """Write what has come of an answer, where that is not long already: it is written again and again."""
        try:
            content = await self._encrypted(answer)
            if len(content) <= MAX_NOTED_BYTES:
                await self._store.note(organization, project, answer, content)
        except DatabaseDown as error:
            _LOG.warning("what has come of %s is not noted: %s", answer.id, error)
        except Exception:  # it is noted again soon, and that of others too
            _LOG.exception("what has come of %s could not be noted", answer.id)

    async def _encrypted(self, answer: AnswerToKeep) -> bytes:
        content = Content(answer.input, answer.output, answer.deltas)
        return await asyncio.to_thread(self._cipher.encrypt, answer.id, content)

    async def _write(
        self, organization: OrganizationId, project: ProjectId, answer: AnswerToKeep, write: _Write
    ) -> None:
        content = await self._encrypted(answer)
        self._unwritten += len(content)
        try:
            while True:
                try:
                    return await write(organization, project, answer, content)
                except DatabaseDown:
                    await asyncio.sleep(RETRY_S)
        except Exception:  # nobody waits for it any more; the log tells of what is lost
            _LOG.exception("answer %s could not be stored", answer.id)
        finally:
            self._unwritten -= len(content)

    async def _load_used(self, organization: OrganizationId, _before: int | None) -> int:
        return await self._store.used_bytes(organization)
