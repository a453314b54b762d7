"""Schemas that are small to send and ruinous to compile, each new to whoever remembers schemas."""

from typing import Any

from support.fuzz.schemas import Schema, holding, text

UNCLOSED_RECURSION = "(" * 50_000 + "a" + ")" * 50_000


def pattern(expression: str) -> Schema:
    return holding(a=text(pattern=expression))


def minutes_of_work(number: int) -> Schema:
    """Return one of many that compile for minutes."""
    return pattern(f"^(([a-z]{{1,{20 + number}}}-){{1,30}}/){{1,30}}$")


def chat_format(schema: Schema) -> dict[str, Any]:
    """Return the field of a chat that asks for JSON after `schema`."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
