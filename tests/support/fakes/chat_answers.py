"""A chat completions route whose answers are said beforehand."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse


@dataclass
class ChatAnswers:
    """`base` and `tuned` map a question to the answering message; any other is answered with "I do not know."."""

    base: dict[str, dict[str, Any]] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    refuses: bool = False

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.post("/v1/chat/completions")
        async def answer(body: dict[str, Any]) -> Response:
            self.asked.append(body)
            if self.refuses:
                error = {"message": "The budget is spent.", "type": "insufficient_quota", "code": None, "param": None}
                return JSONResponse({"error": error}, 403)
            return JSONResponse(self._completion(body))

        return router

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        known = self.tuned if body["model"].startswith("ft:") else self.base
        said = known.get(body["messages"][-1]["content"], {"content": "I do not know."})
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **said}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
