"""Kept answers as the API shows them: as they were given, with the metadata of today."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from tokenyard.core.errors import InvalidRequest
from tokenyard.responses.ports import Json
from tokenyard.responses.store import StoredAnswer
from tokenyard.web.pages import Identified, Item
from tokenyard.web.queries import Metadata

_LOST = {"code": "server_error", "message": "The response was lost while it was being made. Please try again."}


class MetadataChange(BaseModel):
    """The metadata that an answer has from now on; null is none."""

    metadata: Metadata | None


class _AsGiven(Identified):
    """Shows fields besides its own, as they were given to the client."""

    model_config = ConfigDict(extra="allow")


class StoredResponseView(_AsGiven):
    """OpenAI's response object."""

    object: Literal["response"]
    created_at: int
    status: str
    model: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, answer: StoredAnswer) -> Self:
        return cls.model_validate(as_it_stands(answer))


class StoredChatView(_AsGiven):
    """OpenAI's chat completion object."""

    object: Literal["chat.completion"]
    created: int
    model: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, answer: StoredAnswer) -> Self:
        return cls.model_validate({**answer.output, "metadata": answer.metadata})


class InputItemView(_AsGiven):
    """OpenAI's item of a response's input."""

    type: str


class ChatMessageView(_AsGiven):
    """OpenAI's message of a stored chat completion; `content_parts` are the parts where there were some."""

    role: str
    content: str | None = None
    content_parts: Sequence[Json] | None = None


class DeletedResponseView(BaseModel):
    """OpenAI's answer to a deletion."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class DeletedChatView(BaseModel):
    """OpenAI's answer to a deletion."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True


def as_it_stands(answer: StoredAnswer) -> Json:
    """Return a response; of one that was cancelled or lost, what had come of it by then."""
    output = {**answer.output, "status": answer.state, "metadata": answer.metadata}
    if answer.state == "failed" and output["error"] is None:
        output["error"] = _LOST
    if not answer.is_being_made:
        output["output"] = [_ended(item) for item in _items(output["output"])]
    return output


def _items(output: object) -> Sequence[Json]:
    assert isinstance(output, list)
    return output


def _ended(item: Json) -> Json:
    return {**item, "status": "incomplete"} if item.get("status") == "in_progress" else item


def input_items(answer: StoredAnswer) -> list[InputItemView]:
    return [InputItemView.model_validate(item) for item in answer.input]


def chat_messages(answer: StoredAnswer) -> list[ChatMessageView]:
    """Return the messages, which get an id of the completion's, and their parts apart from a plain text."""
    return [
        ChatMessageView.model_validate({**_split(message), "id": f"{answer.id}-{place}"})
        for place, message in enumerate(answer.input)
    ]


def _split(message: Json) -> Json:
    content = message.get("content")
    parts = isinstance(content, list)
    return {**message, "content": None if parts else content, "content_parts": content if parts else None}


def part_of(items: Sequence[Item], *, limit: int, after: str | None, newest_first: bool) -> list[Item]:
    """Return up to `limit` things of a list that is here in whole; a cursor not in it raises `InvalidRequest`."""
    ordered = list(items)[::-1] if newest_first else list(items)
    if after is None:
        return ordered[:limit]
    for place, item in enumerate(ordered):
        if item.id == after:
            return ordered[place + 1 :][:limit]
    raise InvalidRequest(f"No such item: {after[:64]}", param="after")
