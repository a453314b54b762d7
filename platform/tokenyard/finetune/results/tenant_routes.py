"""`/v1/fine_tuning/jobs/{job}/adapter`: the files of the model that a job made, for its owner to take along."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from tokenyard.core.errors import NotFound, PermissionDenied
from tokenyard.core.ids import JobId
from tokenyard.core.principal import Principal
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tokenyard.finetune.ports import LiveAdapters
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.views import AdapterFileView
from tokenyard.storage.blobs import BlobStore
from tokenyard.web.auth import FineTuningTenant
from tokenyard.web.pages import Page

FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def adapter_router(jobs: JobStore, adapters: LiveAdapters, blobs: BlobStore, *, allowed: bool) -> APIRouter:
    """Return the routes; where they are not `allowed`, they say so."""
    router = APIRouter(prefix="/v1/fine_tuning/jobs/{job}/adapter", tags=["fine-tuning"])

    async def folder(tenant: Principal, job: str) -> str:
        if not allowed:
            raise PermissionDenied("Adapters cannot be downloaded here.", code="adapter_download_forbidden")
        found = await jobs.get(tenant.organization, JobId(job))
        if found.adapter is None or (path := await adapters.path(found.organization, found.adapter)) is None:
            raise NotFound(f"The job {found.id} has no model, or it was deleted.", param="fine_tuning_job_id")
        tenant.check_model(str(found.model_name))
        return path

    @router.get("")
    async def list_adapter_files(job: str, tenant: FineTuningTenant) -> Page[AdapterFileView]:
        """List what `peft` and others need to use the model elsewhere. OpenAI's API has no counterpart."""
        path = await folder(tenant, job)
        files = [AdapterFileView(id=name, bytes=await blobs.size(f"{path}/{name}")) for name in FILES]
        return Page[AdapterFileView].of(files, len(files))

    @router.get(
        "/{file}",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/octet-stream": {}}, "description": "The file's bytes"}},
    )
    async def adapter_file(job: str, file: str, tenant: FineTuningTenant) -> StreamingResponse:
        path = await folder(tenant, job)
        if file not in FILES:
            raise NotFound(f"An adapter has {' and '.join(FILES)}.", param="file")
        headers = {
            "content-length": str(await blobs.size(f"{path}/{file}")),
            "content-disposition": f'attachment; filename="{file}"',
            "x-content-type-options": "nosniff",
        }
        chunks = blobs.read_stream(f"{path}/{file}")
        return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")

    return router
