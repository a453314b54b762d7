"""Loaded by Schemathesis: lets its shortest bodies get further, and notes every exchange in the file `EXCHANGES`."""

import base64
import json
import os
from typing import Any

import schemathesis

SHORTEST = "0"
MODEL, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
POOLED = ("/v1/embeddings", "/v1/score", "/v1/rerank")
KEYED = ("Idempotency-Key", "Last-Event-ID")


def before_call(_context: Any, case: Any, _more: Any) -> None:
    """Make sense of the shortest values together: else whatever is next to them would never be looked at."""
    if isinstance(case.body, dict):
        _make_sense(case.body, EMBEDDER if case.operation.path in POOLED else MODEL)
    for name in KEYED:
        if case.headers and case.headers.get(name) == SHORTEST:
            del case.headers[name]


def _make_sense(body: dict[str, Any], model: str) -> None:
    if body.get("model") == SHORTEST:
        body["model"] = model
    if body.get("previous_response_id") == "":
        del body["previous_response_id"]
    if body.get("max_tokens") == body.get("max_completion_tokens") == 1:
        del body["max_tokens"]
    if body.get("messages") == [{"role": "tool"}]:
        body["messages"] = [{"role": "user", "content": "0"}]


def after_call(_context: Any, case: Any, response: Any) -> None:
    noted = {
        "operation": case.operation.label,
        "method": response.request.method,
        "url": response.request.url,
        "status": response.status_code,
        "headers": {name.lower(): values[0] for name, values in response.headers.items()},
        "body": base64.b64encode(response.content).decode(),
    }
    with open(os.environ["EXCHANGES"], "a") as file:
        file.write(json.dumps(noted) + "\n")


schemathesis.hook(before_call)
schemathesis.hook(after_call)
