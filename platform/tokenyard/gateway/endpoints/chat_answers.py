"""Answers of chat completions that are more than what the replica says: with a service tier, or to be kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from tokenyard.gateway.endpoints.answer import Answer, KeptAnswer
from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.gateway.endpoints.usage import as_openai


class TieredAnswer(Answer):
    """Tells in whole answers and in every event by which service tier the request was served; None tells nothing."""

    # It is not translated, but it has to be there in whole, too.
    translated = True

    def __init__(self, *, include_usage: bool, choices_per_prompt: int, tier: str | None) -> None:
        super().__init__(include_usage=include_usage, choices_per_prompt=choices_per_prompt)
        self._told_tier: Json = {} if tier is None else {"service_tier": tier}

    def whole(self, reply: bytes) -> bytes:
        passed = super().whole(reply)
        return orjson.dumps({**orjson.loads(passed), **self._told_tier}) if self._told_tier else passed

    def told(self, chunk: Json, frame: bytes) -> bytes:
        chunk.update(self._told_tier)
        if self._told_tier and not chunk.get("usage"):  # any other is encoded anyway
            frame = b"data: " + orjson.dumps(chunk)
        return super().told(chunk, frame)


class KeptChatAnswer(TieredAnswer):
    """Keeps all of an answer; what passes of a stream is put together."""

    def __init__(
        self,
        *,
        include_usage: bool,
        choices_per_prompt: int,
        tier: str | None,
        messages: Sequence[Json],
        metadata: Mapping[str, str],
    ) -> None:
        super().__init__(include_usage=include_usage, choices_per_prompt=choices_per_prompt, tier=tier)
        self._messages = messages
        self._metadata = metadata
        self._head: Json = {}
        self._choices: dict[int, _ChoicePieces] = {}
        self._usage: Json | None = None
        self._whole: Json | None = None

    def whole(self, reply: bytes) -> bytes:
        passed = super().whole(reply)
        self._whole = msgspec.json.decode(passed)
        return passed

    def told(self, chunk: Json, frame: bytes) -> bytes:
        if not self._head:
            self._head = {name: chunk[name] for name in ("id", "created", "model")}
        for choice in chunk.get("choices") or ():
            self._choices.setdefault(choice.get("index", 0), _ChoicePieces()).add(choice)
        if chunk.get("usage") and not chunk.get("choices"):
            self._usage = as_openai(chunk["usage"])
        return super().told(chunk, frame)

    def kept(self) -> KeptAnswer | None:
        completion = self._whole or self._put_together()
        if completion is None:
            return None
        return KeptAnswer(
            kind="chat.completion",
            id=completion["id"],
            model=completion["model"],
            state="completed",
            metadata=self._metadata,
            input=self._messages,
            output=completion,
        )

    def _put_together(self) -> Json | None:
        """Return the completion that the stream told, or None where it did not come to its end."""
        if not self.complete:
            return None
        choices = [pieces.choice(index) for index, pieces in sorted(self._choices.items())]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage} | self._told_tier


class _ChoicePieces:
    """What has come of one choice."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._calls: dict[int, Json] = {}
        self._logprobs: list[Any] | None = None
        self._finish_reason = "stop"

    def add(self, choice: Json) -> None:
        delta = choice.get("delta") or {}
        if delta.get("content"):
            self._content.append(delta["content"])
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        if logprobs := (choice.get("logprobs") or {}).get("content"):
            self._logprobs = self._logprobs or []
            self._logprobs.extend(logprobs)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def _add_call(self, told: Json) -> None:
        function = told.get("function") or {}
        known = self._calls.setdefault(
            told.get("index", 0), {"id": "", "type": "function", "name": "", "arguments": list[str]()}
        )
        known["id"] = told.get("id") or known["id"]
        known["name"] = function.get("name") or known["name"]
        known["arguments"].append(function.get("arguments") or "")

    def choice(self, index: int) -> Json:
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
            }
            for _, call in sorted(self._calls.items())
        ]
        message: Json = {"role": "assistant", "content": "".join(self._content) or None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        logprobs = None if self._logprobs is None else {"content": self._logprobs, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self._finish_reason}
