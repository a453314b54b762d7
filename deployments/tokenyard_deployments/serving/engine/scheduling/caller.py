"""Whose a sequence is and how much weight that has: told by the replica, read by the engine's scheduler.

Both go with the request as `trace_headers`, which vLLM carries to its engine for all that it serves.
"""

from dataclasses import dataclass
from typing import Any

from tokenyard.core.usage import DEFAULT_TIER, MeterClaims

_ORGANIZATION = "tokenyard-organization"
_WEIGHT = "tokenyard-weight"


@dataclass(frozen=True, slots=True)
class Caller:
    """`adapter` is vLLM's number of the LoRA adapter, None for the base model.

    Each service tier of an organization is served as if it were one of its own: with its own weight, and its own turn.
    """

    organization: str
    weight: int
    adapter: int | None


def tell_caller(request: Any, claims: MeterClaims) -> None:
    """Write into vLLM's `EngineCoreRequest` whose it is."""
    headers = dict(request.trace_headers or {})
    organization = claims.organization if claims.tier == DEFAULT_TIER else f"{claims.organization}/{claims.tier}"
    request.trace_headers = headers | {_ORGANIZATION: organization, _WEIGHT: str(claims.weight)}


def take_caller(request: Any) -> Caller:
    """Read vLLM's `Request`, and take out what was told: every output would carry it back.

    A request that nobody told of, such as a probe, is its cache salt's, or the platform's own.
    """
    headers = dict(request.trace_headers or {})
    organization = headers.pop(_ORGANIZATION, None) or request.cache_salt or ""
    weight = int(headers.pop(_WEIGHT, "1"))
    request.trace_headers = headers or None
    lora = request.lora_request
    return Caller(organization, weight, lora.lora_int_id if lora is not None else None)
