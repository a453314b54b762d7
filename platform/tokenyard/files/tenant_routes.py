"""`/v1/files`, as OpenAI's API has it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from tokenyard.core.ids import FileId
from tokenyard.core.principal import KeyScope, Principal
from tokenyard.files.store import FileStore
from tokenyard.files.uploads import FORM, Uploads
from tokenyard.files.views import DeletedFileView, FileView
from tokenyard.storage.blobs import BlobStore
from tokenyard.web.auth import TenantWith
from tokenyard.web.pages import After, Page

MAX_PAGE = 10_000
FILES_PATH = "/v1/files"
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}
Tenant = Annotated[Principal, Depends(TenantWith(KeyScope.FILES))]
FreshTenant = Annotated[Principal, Depends(TenantWith(KeyScope.FILES, fresh=True))]


def file_router(files: FileStore, uploads: Uploads, blobs: BlobStore) -> APIRouter:
    router = APIRouter(prefix=FILES_PATH, tags=["files"])

    @router.post("", response_model_exclude_unset=True, openapi_extra=_BODY)
    async def create_file(request: Request, tenant: FreshTenant) -> FileView:
        length = request.headers.get("content-length", "")
        stored = await uploads.receive(
            tenant,
            request.headers.get("content-type", ""),
            int(length) if length.isdecimal() else None,
            request.stream(),
        )
        return FileView.of(stored)

    @router.get("", response_model_exclude_unset=True)
    async def list_files(
        tenant: Tenant,
        purpose: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
        order: Literal["asc", "desc"] = "desc",
        after: After = None,
    ) -> Page[FileView]:
        found = await files.page(
            tenant.organization, purpose=purpose, limit=limit + 1, after=after or None, newest_first=order == "desc"
        )
        return Page[FileView].of([FileView.of(file) for file in found], limit)

    @router.get("/{file}", response_model_exclude_unset=True)
    async def retrieve_file(file: str, tenant: Tenant) -> FileView:
        return FileView.of(await files.get(tenant.organization, FileId(file)))

    @router.get(
        "/{file}/content",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/octet-stream": {}}, "description": "The file's bytes"}},
    )
    async def file_content(file: str, tenant: Tenant) -> StreamingResponse:
        stored = await files.get(tenant.organization, FileId(file))
        headers = {"content-length": str(stored.bytes), "x-content-type-options": "nosniff"}
        chunks = blobs.read_stream(files.path(tenant.organization, stored.id))
        return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")

    @router.delete("/{file}")
    async def delete_file(file: str, tenant: FreshTenant) -> DeletedFileView:
        await files.begin_delete(tenant.organization, FileId(file))
        await blobs.delete(files.path(tenant.organization, FileId(file)))
        await files.forget(tenant.organization, FileId(file))
        return DeletedFileView(id=file)

    return router
