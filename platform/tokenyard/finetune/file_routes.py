"""`/v1/files`, as OpenAI's API has it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from tokenyard.core.ids import FileId
from tokenyard.finetune.files import FileStore, file_path
from tokenyard.finetune.uploads import Uploads
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.paging import list_object
from tokenyard.web.auth import CurrentTenant

MAX_PAGE = 10_000
FILES_PATH = "/v1/files"


def file_router(files: FileStore, uploads: Uploads, blobs: BlobStore) -> APIRouter:
    """Return the routes of files."""
    router = APIRouter(prefix=FILES_PATH, tags=["files"])

    @router.post("")
    async def create_file(request: Request, tenant: CurrentTenant) -> dict[str, Any]:
        length = request.headers.get("content-length", "")
        view = await uploads.receive(
            tenant,
            request.headers.get("content-type", ""),
            int(length) if length.isdecimal() else None,
            request.stream(),
        )
        return view.as_openai()

    @router.get("")
    async def list_files(
        tenant: CurrentTenant,
        purpose: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> dict[str, Any]:
        views, has_more = await files.page(
            tenant.organization,
            purpose=purpose,
            limit=limit,
            after=FileId(after) if after else None,
            newest_first=order == "desc",
        )
        return list_object([view.as_openai() for view in views], has_more=has_more)

    @router.get("/{file}")
    async def retrieve_file(file: str, tenant: CurrentTenant) -> dict[str, Any]:
        return (await files.get(tenant.organization, FileId(file))).as_openai()

    @router.get("/{file}/content")
    async def file_content(file: str, tenant: CurrentTenant) -> StreamingResponse:
        view = await files.get(tenant.organization, FileId(file))
        headers = {"content-length": str(view.bytes), "x-content-type-options": "nosniff"}
        chunks = blobs.read_stream(file_path(tenant.organization, view.id))
        return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")

    @router.delete("/{file}")
    async def delete_file(file: str, tenant: CurrentTenant) -> dict[str, Any]:
        await files.begin_delete(tenant.organization, FileId(file))
        await blobs.delete(file_path(tenant.organization, FileId(file)))
        await files.forget(tenant.organization, FileId(file))
        return {"id": file, "object": "file", "deleted": True}

    return router
