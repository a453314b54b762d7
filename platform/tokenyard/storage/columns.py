"""Column types shared by all tables."""

from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import mapped_column

Nano = Annotated[int, mapped_column(BigInteger)]
"""Nano-dollars. 64 bits hold nine thousand million dollars."""

Count = Annotated[int, mapped_column(BigInteger)]
"""A number of tokens or rows."""

UnixMs = Annotated[int, mapped_column(BigInteger)]
"""Unix milliseconds."""

UnixSeconds = Annotated[int, mapped_column(BigInteger)]
"""Unix seconds, as OpenAI's API shows them."""

Id = Annotated[str, mapped_column(String(96))]
"""One of `core.ids`."""

Json = Annotated[dict[str, Any], mapped_column(JSON().with_variant(JSONB(), "postgresql"))]
"""A JSON object."""
