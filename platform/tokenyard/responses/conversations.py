"""The conversations that responses make: each goes on from the one before it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, literal, select
from sqlalchemy.orm import aliased

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.responses.content import Content, ContentCipher
from tokenyard.responses.ports import Json
from tokenyard.responses.store import AnswerKind
from tokenyard.responses.tables import AnswerRow
from tokenyard.storage.database import Database

MAX_RESPONSES = 500
MAX_BYTES = 4 * 1024 * 1024
"""As long as a request's body may be: what a client could send, it may also refer to."""

Came = Callable[[int], None]
"""Is told how many bytes are about to be read, and may raise."""


class _Link(NamedTuple):
    id: str
    previous: str | None
    state: str
    size: int


class ConversationStore:
    """Reads what was said before; what is not there, or another's, raises `InvalidRequest`."""

    def __init__(self, database: Database, clock: Clock, cipher: ContentCipher, *, retention_ms: int) -> None:
        self._database = database
        self._clock = clock
        self._cipher = cipher
        self._retention_ms = retention_ms

    async def conversation(
        self, organization: OrganizationId, project: ProjectId, response: str, came: Came
    ) -> list[Json]:
        """Return all items, given and answered, up to the end of `response`."""
        chain = await self._chain(organization, project, response)
        if len(chain) > MAX_RESPONSES:
            raise _too_long(f"of more than {MAX_RESPONSES} responses")
        if chain[0].state not in ("completed", "incomplete"):
            raise InvalidRequest(
                f"Previous response with id '{response}' is {chain[0].state}.", param="previous_response_id"
            )
        self._check_size(sum(link.size for link in chain), came)
        contents = await self._contents([link.id for link in chain])
        items: list[Json] = []
        for link in reversed(chain):
            content = contents.get(link.id)
            if content is None:  # deleted since
                raise _not_found(link.id)
            items.extend(_items(content))
        return items

    async def items(
        self, organization: OrganizationId, project: ProjectId, wanted: Mapping[str, str], came: Came
    ) -> dict[str, Json]:
        """Return items by their ids; `wanted` tells of each the response that it belongs to."""
        statement = select(AnswerRow.id, AnswerRow.size).where(
            AnswerRow.id.in_(set(wanted.values())), *self._where(AnswerRow, organization, project)
        )
        async with self._database.reading() as session:
            rows = list(await session.execute(statement))
        self._check_size(sum(row.size for row in rows), came)
        contents = await self._contents([row.id for row in rows])
        known = {str(item["id"]): item for content in contents.values() for item in _items(content)}
        for item in wanted:
            if item not in known:
                raise InvalidRequest(f"Item with id '{item}' not found.", param="input", code="item_not_found")
        return {item: known[item] for item in wanted}

    async def _chain(self, organization: OrganizationId, project: ProjectId, response: str) -> list[_Link]:
        """Return `response` and those before it, the newest first."""
        first = select(
            AnswerRow.id, AnswerRow.previous, AnswerRow.state, AnswerRow.size, literal(1).label("depth")
        ).where(AnswerRow.id == response, *self._where(AnswerRow, organization, project))
        chain = first.cte("chain", recursive=True)
        earlier = aliased(AnswerRow)
        chain = chain.union_all(
            select(earlier.id, earlier.previous, earlier.state, earlier.size, chain.c.depth + 1).where(
                earlier.id == chain.c.previous,
                chain.c.depth <= MAX_RESPONSES,
                *self._where(earlier, organization, project),
            )
        )
        statement = select(chain.c.id, chain.c.previous, chain.c.state, chain.c.size).order_by(chain.c.depth)
        async with self._database.reading() as session:
            found = [_Link(*row) for row in await session.execute(statement)]
        if not found:
            raise _not_found(response)
        if found[-1].previous is not None and len(found) <= MAX_RESPONSES:
            raise _not_found(found[-1].previous)
        return found

    async def _contents(self, ids: Sequence[str]) -> dict[str, Content]:
        async with self._database.reading() as session:
            rows = list(await session.execute(select(AnswerRow.id, AnswerRow.content).where(AnswerRow.id.in_(ids))))

        def decrypted() -> dict[str, Content]:
            return {answer: self._cipher.decrypt(answer, content) for answer, content in rows}

        return await asyncio.to_thread(decrypted)

    def _check_size(self, size: int, came: Came) -> None:
        if size > MAX_BYTES:
            raise _too_long(f"of more than {MAX_BYTES} bytes")
        came(size)

    def _where(
        self, row: type[AnswerRow], organization: OrganizationId, project: ProjectId
    ) -> list[ColumnElement[bool]]:
        return [
            row.organization == organization,
            row.project == project,
            row.kind == AnswerKind.RESPONSE,
            row.created_at_ms > self._clock.now_ms() - self._retention_ms,
        ]


def _items(content: Content) -> list[Json]:
    output = content.output["output"]
    assert isinstance(output, list)
    return [*content.input, *output]


def _not_found(response: str) -> InvalidRequest:
    return InvalidRequest(
        f"Previous response with id '{response[:64]}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def _too_long(how: str) -> InvalidRequest:
    return InvalidRequest(
        f"A conversation {how} cannot be gone on with. Please send what is needed of it as 'input'.",
        param="previous_response_id",
    )
