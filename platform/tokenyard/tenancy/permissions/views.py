"""Permissions in OpenAI's shapes."""

from typing import Annotated, Literal

from pydantic import Field

from tokenyard.core.ids import ProjectId
from tokenyard.tenancy.plans.rules import StrictBody
from tokenyard.tenancy.views import RowView
from tokenyard.web.pages import Identified
from tokenyard.web.request_guard import NO_NUL

MAX_PROJECTS = 50
"""That one call may let use a model."""


class NewPermissions(StrictBody):
    """The projects of the caller's organization that are to use a fine-tuned model."""

    project_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=96, pattern=NO_NUL)]],
        Field(min_length=1, max_length=MAX_PROJECTS),
    ]


class CheckpointPermission(RowView):
    """OpenAI's `checkpoint.permission`."""

    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: ProjectId


class CheckpointPermissionDeleted(Identified):
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: bool = True
