"""`POST /v1/responses/input_tokens`: how many tokens a conversation has, counted here and free."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from tokenyard.gateway.endpoints.responses.conversation import InputTokensBody
from tokenyard.gateway.endpoints.table import read_body
from tokenyard.gateway.path.inference import Inference
from tokenyard.web.auth import InferenceTenant

PATH = "/v1/responses/input_tokens"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{InputTokensBody.__name__}"}}},
    }
}
_DECODER = msgspec.json.Decoder(InputTokensBody)


class InputTokenCount(BaseModel):
    """The tokens of the texts are exact; what the model's template puts around them is counted at its most."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: Annotated[int, Field(ge=0)]


def input_tokens_router(inference: Inference) -> APIRouter:
    routes = APIRouter(tags=["inference"])

    @routes.post(PATH, summary="Count the tokens of a conversation", openapi_extra=_BODY)
    async def count_input_tokens(tenant: InferenceTenant, request: Request) -> InputTokenCount:
        """Free. The answer is never below what the response would be charged for; of an organization's conversations
        one is counted at a time.
        """
        body = read_body(await request.body(), _DECODER)
        return InputTokenCount(input_tokens=await inference.count_input(PATH, body, tenant))

    return routes
