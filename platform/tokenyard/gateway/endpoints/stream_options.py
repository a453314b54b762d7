"""`stream_options`: what the client may ask about its stream."""

from typing import Any

from tokenyard.gateway.endpoints.parameters import boolean, mapping, unknown

# Sent upstream with every stream, so that what passed is known exactly at any moment.
ALWAYS_ASKED = {"include_usage": True, "continuous_usage_stats": True}


def stream_options(name: str, value: Any) -> dict[str, bool]:
    """Accept {include_usage, include_obfuscation}; the latter changes nothing here."""
    given = mapping(name, value)
    for field, flag in given.items():
        if field not in ("include_usage", "include_obfuscation"):
            raise unknown(f"{name}.{field}")
        if flag is not None:
            boolean(f"{name}.{field}", flag)
    return {"include_usage": bool(given.get("include_usage"))}
