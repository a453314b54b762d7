"""Model files as the API shows them."""

from typing import Literal, Self

from pydantic import BaseModel

from tokenyard.catalog.tables import ModelFilesRow


class ModelFilesView(BaseModel):
    """A published set: the YAML of each model, in the order of `models`. Times are unix seconds."""

    object: Literal["model_files"] = "model_files"
    revision: int
    models: list[str]
    files: dict[str, str]
    sha256: str
    published_by: str
    published_at: int

    @classmethod
    def of(cls, row: ModelFilesRow) -> Self:
        return cls(
            revision=row.revision,
            models=list(row.by_model),
            files=row.by_model,
            sha256=row.sha256,
            published_by=row.published_by,
            published_at=row.published_at_ms // 1000,
        )


class ModelFilesChecked(BaseModel):
    """A set that could be put in force."""

    object: Literal["model_files.check"] = "model_files.check"
    models: list[str]
