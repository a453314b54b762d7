"""`POST /v1/messages/count_tokens`: how many tokens a conversation has, counted here and free."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.anthropic.messages import CountTokensBody
from tokenyard.gateway.endpoints.table import read_body
from tokenyard.gateway.path.resolve import check_task
from tokenyard.gateway.ports import ModelResolver
from tokenyard.web.auth import InferenceTenant

PATH = "/v1/messages/count_tokens"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{CountTokensBody.__name__}"}}},
    }
}
_DECODER = msgspec.json.Decoder(CountTokensBody)


class TokenCount(BaseModel):
    """The tokens of the texts are exact; what the model's template puts around them is counted at its most."""

    input_tokens: Annotated[int, Field(ge=0)]


def count_tokens_router(models: ModelResolver, counter: TokenCounter) -> APIRouter:
    routes = APIRouter(tags=["inference"])

    @routes.post(PATH, summary="Count the tokens of a conversation", openapi_extra=_BODY)
    async def count_tokens(tenant: InferenceTenant, request: Request) -> TokenCount:
        """Free. The answer is never below what the message would be charged for; of an organization's conversations
        one is counted at a time.
        """
        body = read_body(await request.body(), _DECODER)
        model = await models.resolve(tenant.organization, body.model)
        tenant.check_model(model.name)
        check_task(PATH, body.task, model)
        base = model.base
        body.check_model(base)
        counts = await counter.count(tenant.organization, body.prompts(base), base)
        if counts is None:
            raise InvalidRequest("The tokens of this model cannot be counted here.", param="model")
        return TokenCount(input_tokens=sum(counts))

    return routes
