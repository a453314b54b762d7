"""Files as the API shows them."""

from typing import Literal

from pydantic import BaseModel

from tokenyard.files.store import StoredFile
from tokenyard.web.pages import Identified


class FileView(Identified):
    """OpenAI's file object. `expires_at` is left out where the file does not expire."""

    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"]

    @classmethod
    def of(cls, file: StoredFile) -> "FileView":
        view = cls(
            id=file.id,
            object="file",
            bytes=file.bytes,
            created_at=file.created_at,
            filename=file.filename,
            purpose=file.purpose,
            status="processed",
        )
        if file.expires_at is not None:
            view.expires_at = file.expires_at
        return view


class DeletedFileView(BaseModel):
    """OpenAI's answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
