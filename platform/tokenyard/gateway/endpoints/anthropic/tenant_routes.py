"""`POST /v1/messages/count_tokens`: how many tokens a conversation has, counted here and free."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from tokenyard.gateway.endpoints.anthropic.errors import AnthropicErrorBody
from tokenyard.gateway.endpoints.anthropic.messages import CountTokensBody
from tokenyard.gateway.endpoints.table import read_body
from tokenyard.gateway.path.inference import Inference
from tokenyard.web.auth import InferenceTenant

PATH = "/v1/messages/count_tokens"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{CountTokensBody.__name__}"}}},
    }
}
_ERROR = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{AnthropicErrorBody.__name__}"}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request cannot be served as it is.", **_ERROR},
    "5XX": {"description": "The request is not to blame; it may be sent again.", **_ERROR},
}
_DECODER = msgspec.json.Decoder(CountTokensBody)


class TokenCount(BaseModel):
    """The tokens of the texts are exact; what the model's template puts around them is counted at its most."""

    input_tokens: Annotated[int, Field(ge=0)]


def count_tokens_router(inference: Inference) -> APIRouter:
    routes = APIRouter(tags=["inference"])

    @routes.post(PATH, summary="Count the tokens of a conversation", openapi_extra=_BODY, responses=_ERRORS)
    async def count_tokens(tenant: InferenceTenant, request: Request) -> TokenCount:
        """Free. The answer is never below what the message would be charged for; of an organization's conversations
        one is counted at a time.
        """
        body = read_body(await request.body(), _DECODER)
        return TokenCount(input_tokens=await inference.count_input(PATH, body, tenant))

    return routes
