"""Evals as OpenAI's API has them."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from pydantic import BaseModel, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.evals.criteria import criteria_of
from tokenyard.evals.item_schema import ItemSchema, ItemSchemaProblem
from tokenyard.evals.parsing import check_json, refused, shaped
from tokenyard.evals.ports import Json
from tokenyard.evals.store import EvalContent, StoredEval
from tokenyard.web.pages import Identified
from tokenyard.web.queries import Metadata
from tokenyard.web.request_guard import NO_NUL

MAX_NAME = 255
_WHERE = "data_source_config"
_NOT_TYPES = {
    "logs": "what was asked before are not rows here; give them as a file.",
    "stored_completions": "stored chat completions are not rows here; give them as a file.",
}
_SAMPLE_SCHEMA: Json = {
    "type": "object",
    "properties": {"output_text": {"type": "string"}},
    "required": ["output_text"],
}


class _CustomConfig(msgspec.Struct, frozen=True, tag_field="type", tag="custom", forbid_unknown_fields=True):
    item_schema: Json
    include_sample_schema: bool = False


class EvalRequest(BaseModel, extra="forbid"):
    """An eval that is to be created."""

    name: str = Field(default="", max_length=MAX_NAME, pattern=NO_NUL)
    metadata: Metadata | None = None
    data_source_config: Json
    testing_criteria: list[Json]

    def checked(self) -> EvalContent:
        """Return what is graded and how, or raise `InvalidRequest`."""
        check_json(self.data_source_config, _WHERE)
        check_json(self.testing_criteria, "testing_criteria")
        kind = self.data_source_config.get("type")
        if isinstance(kind, str) and kind in _NOT_TYPES:
            raise refused(f"{_WHERE}.type", _NOT_TYPES[kind])
        config = shaped(self.data_source_config, _CustomConfig, _WHERE)
        try:
            ItemSchema(config.item_schema)
        except ItemSchemaProblem as problem:
            param = f"{_WHERE}.item_schema.{problem.param}".removesuffix(".")
            raise InvalidRequest(problem.message, param=param, code="invalid_item_schema") from None
        criteria_of(self.testing_criteria, with_samples=config.include_sample_schema)
        return EvalContent(config.item_schema, config.include_sample_schema, self.testing_criteria)


class EvalChange(BaseModel, extra="forbid"):
    """What is to be another for an eval; what is not given stays, and null is no metadata."""

    name: str | None = Field(default=None, max_length=MAX_NAME, pattern=NO_NUL)
    metadata: Metadata | None = None


class EvalConfigView(BaseModel):
    """What the rows of an eval's runs are, as one JSON schema."""

    type: Literal["custom"] = "custom"
    schema_: Json = Field(serialization_alias="schema", validation_alias="schema")


class EvalView(Identified):
    """OpenAI's eval object."""

    object: Literal["eval"] = "eval"
    name: str
    created_at: int
    metadata: dict[str, str]
    data_source_config: EvalConfigView
    testing_criteria: Sequence[Json]

    @classmethod
    def of(cls, found: StoredEval) -> "EvalView":
        return cls(
            id=found.id,
            name=found.name,
            created_at=found.created_at,
            metadata=dict(found.metadata),
            data_source_config=EvalConfigView(schema=_row_schema(found.content)),
            testing_criteria=found.content.testing_criteria,
        )


class DeletedEvalView(BaseModel):
    """OpenAI's answer to a deletion."""

    object: Literal["eval.deleted"] = "eval.deleted"
    deleted: Literal[True] = True
    eval_id: str


def _row_schema(content: EvalContent) -> Json:
    parts: Json = {"item": content.item_schema}
    if content.with_samples:
        parts["sample"] = _SAMPLE_SCHEMA
    return {"type": "object", "properties": parts, "required": list(parts)}
