"""`/v1/responses/{id}` and stored `/v1/chat/completions`, as OpenAI's API has them; creating them is paid for."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from tokenyard.core.errors import InvalidRequest
from tokenyard.responses.event_streams import ResponseStreams
from tokenyard.responses.store import AnswerKind, AnswerStore
from tokenyard.responses.views import (
    ChatMessageView,
    DeletedChatView,
    DeletedResponseView,
    InputItemView,
    MetadataChange,
    StoredChatView,
    StoredResponseView,
    chat_messages,
    input_items,
    part_of,
)
from tokenyard.web.auth import FreshInferenceTenant, InferenceTenant
from tokenyard.web.pages import After, Order, Page, PageSize
from tokenyard.web.queries import METADATA_QUERY, list_query, metadata_filter

MAX_CHAT_PAGE = 20
"""Each of them may be long."""
_NOT_BUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_LOGPROBS = "message.output_text.logprobs"
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The response; with `stream`, its events, also those that are yet to come.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_INCLUDE = {"parameters": [list_query("include", {"enum": [_LOGPROBS]}, description="Shown where there are some.")]}
_StartingAfter = Annotated[int | None, Query(ge=0, description="With `stream`: the number of the last event known.")]
_Obfuscation = Annotated[bool, Query(description="Only false: events are not padded.")]


def response_router(answers: AnswerStore, streams: ResponseStreams) -> APIRouter:
    router = APIRouter(prefix="/v1/responses", tags=["responses"])

    @router.get(
        "/{response}",
        response_model=StoredResponseView,
        response_model_exclude_unset=True,
        responses=_EVENTS,
        openapi_extra=_INCLUDE,
    )
    async def retrieve_response(
        response: str,
        request: Request,
        tenant: InferenceTenant,
        *,
        stream: bool = False,
        starting_after: _StartingAfter = None,
        include_obfuscation: _Obfuscation = False,
    ) -> StoredResponseView | StreamingResponse:
        _check_include(request)
        if include_obfuscation:
            raise InvalidRequest("Unsupported parameter: 'include_obfuscation'.", param="include_obfuscation")
        owner = tenant.organization, tenant.project
        if stream:
            after = -1 if starting_after is None else starting_after
            events = await streams.open(*owner, response, after=after)
            return StreamingResponse(events, headers=_NOT_BUFFERED, media_type="text/event-stream")
        if starting_after is not None:
            raise InvalidRequest("'starting_after' is only allowed with 'stream'.", param="starting_after")
        return StoredResponseView.of(await answers.get(*owner, AnswerKind.RESPONSE, response))

    @router.delete("/{response}")
    async def delete_response(response: str, tenant: FreshInferenceTenant) -> DeletedResponseView:
        await answers.delete(tenant.organization, tenant.project, AnswerKind.RESPONSE, response)
        return DeletedResponseView(id=response)

    @router.post("/{response}/cancel", response_model_exclude_unset=True)
    async def cancel_response(response: str, tenant: FreshInferenceTenant) -> StoredResponseView:
        return StoredResponseView.of(await answers.cancel(tenant.organization, tenant.project, response))

    @router.get("/{response}/input_items", response_model_exclude_unset=True, openapi_extra=_INCLUDE)
    async def list_input_items(
        response: str,
        request: Request,
        tenant: InferenceTenant,
        *,
        limit: PageSize = 20,
        order: Order = "desc",
        after: After = None,
    ) -> Page[InputItemView]:
        _check_include(request)
        found = await answers.get(tenant.organization, tenant.project, AnswerKind.RESPONSE, response)
        part = part_of(input_items(found), limit=limit + 1, after=after or None, newest_first=order == "desc")
        return Page[InputItemView].of(part, limit)

    return router


def chat_completion_router(answers: AnswerStore) -> APIRouter:
    router = APIRouter(prefix="/v1/chat/completions", tags=["stored chat completions"])

    @router.get("", response_model_exclude_unset=True, openapi_extra={"parameters": [METADATA_QUERY]})
    async def list_chat_completions(
        request: Request,
        tenant: InferenceTenant,
        *,
        model: Annotated[str | None, Query(max_length=255)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_CHAT_PAGE)] = MAX_CHAT_PAGE,
        order: Order = "asc",
        after: After = None,
    ) -> Page[StoredChatView]:
        found = await answers.page(
            tenant.organization,
            tenant.project,
            AnswerKind.CHAT,
            limit=limit + 1,
            after=after or None,
            newest_first=order == "desc",
            model=model,
            metadata=metadata_filter(request) or None,
        )
        return Page[StoredChatView].of([StoredChatView.of(answer) for answer in found], limit)

    @router.get("/{completion}", response_model_exclude_unset=True)
    async def retrieve_chat_completion(completion: str, tenant: InferenceTenant) -> StoredChatView:
        return StoredChatView.of(await answers.get(tenant.organization, tenant.project, AnswerKind.CHAT, completion))

    @router.post("/{completion}", response_model_exclude_unset=True)
    async def update_chat_completion(
        completion: str, body: MetadataChange, tenant: FreshInferenceTenant
    ) -> StoredChatView:
        return StoredChatView.of(
            await answers.set_metadata(
                tenant.organization, tenant.project, AnswerKind.CHAT, completion, body.metadata or {}
            )
        )

    @router.delete("/{completion}")
    async def delete_chat_completion(completion: str, tenant: FreshInferenceTenant) -> DeletedChatView:
        await answers.delete(tenant.organization, tenant.project, AnswerKind.CHAT, completion)
        return DeletedChatView(id=completion)

    @router.get("/{completion}/messages", response_model_exclude_unset=True)
    async def list_chat_messages(
        completion: str, tenant: InferenceTenant, limit: PageSize = 20, order: Order = "asc", after: After = None
    ) -> Page[ChatMessageView]:
        found = await answers.get(tenant.organization, tenant.project, AnswerKind.CHAT, completion)
        part = part_of(chat_messages(found), limit=limit + 1, after=after or None, newest_first=order == "desc")
        return Page[ChatMessageView].of(part, limit)

    return router


def _check_include(request: Request) -> None:
    for name in ("include", "include[]"):
        for wanted in request.query_params.getlist(name):
            if wanted != _LOGPROBS:  # which are shown where there are some
                raise InvalidRequest(f"Unsupported value in 'include': '{wanted[:64]}'.", param="include")
