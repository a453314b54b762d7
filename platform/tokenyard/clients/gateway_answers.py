"""Asks models through the gateway, as any client does: what is asked is routed, metered, limited and charged alike."""

from collections.abc import Awaitable, Callable

import msgspec

from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.core.evaluation.questions import Answered, NotAnswered, Question
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.usage import TokenUsage

REQUEST_TIMEOUT_S = 60.0
# Not every gateway knows a model that was made live just now; what a killed worker asked may still run.
_PASSING = ("model_not_found", "idempotency_key_in_use")
_FINAL = ("insufficient_quota",)

Lend = Callable[[ApiKeyId], Awaitable[str | None]]
"""Gives a bearer that stands for a key; None where there is no such key any more."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def tokens(self) -> TokenUsage:
        details = self.prompt_tokens_details
        return TokenUsage(self.prompt_tokens, self.completion_tokens, details.cached_tokens if details else 0)


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage = _Usage()


class GatewayAnswers:
    """Used inside the block of its connection."""

    def __init__(self, connection: ApiConnection, lend: Lend) -> None:
        self._connection = connection
        self._lend = lend

    async def ask(
        self, question: Question, *, model: str, key: ApiKeyId, idempotency_key: str, max_tokens: int
    ) -> Answered:
        """Return a model's answer, of `max_tokens` tokens at most: the likeliest, if the question says nothing else.

        Asked again under its idempotency key, it is the same answer, charged once. Raises `NotAnswered`.
        """
        bearer = await self._lend(key)
        if bearer is None:
            raise NotAnswered("The API key in whose name models are asked was deleted.")
        try:
            content = await self._connection.request(
                "POST",
                question.path,
                key=bearer,
                query={},
                body={"temperature": 0, **question.asked, "model": model, "max_tokens": max_tokens},
                timeout_s=REQUEST_TIMEOUT_S,
                headers={"Idempotency-Key": idempotency_key},
            )
        except ApiFailed as failed:
            passing = failed.code in _PASSING or (failed.passing and failed.code not in _FINAL)
            # Where nothing answered, the message names an address of ours.
            message = str(failed) if failed.status else "The gateway does not answer."
            raise NotAnswered(message, passing=passing) from failed
        return _answer(content)


def _answer(content: bytes) -> Answered:
    try:
        reply = msgspec.json.decode(content, type=_Reply)
        [choice] = reply.choices
    except (msgspec.MsgspecError, ValueError):
        raise NotAnswered("The model's answer is not understood.") from None
    text = choice.text if choice.message is None else choice.message.content
    return Answered(text or "", choice.finish_reason or "stop", reply.usage.tokens)
