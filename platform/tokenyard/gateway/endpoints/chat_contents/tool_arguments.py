"""The arguments of functions that the model called earlier: JSON as text, which chat templates read and print anew."""

import re
from typing import Any

import msgspec

from tokenyard.core.schemas import MAX_DEPTH, MAX_VALUES
from tokenyard.gateway.endpoints.body_bounds import elements
from tokenyard.gateway.endpoints.invalid_body import invalid

_INDENT = 4
_LEVELS_ABOVE = 4  # a message, its calls, one of them, its function
_EXPONENT = re.compile(r"[0-9][eE]")
_MOST_OF_AN_EXPONENT = " " * 15  # `1e15` is printed as 1000000000000000.0


def readable(arguments: str, name: str) -> str:
    """Return `arguments` as model servers read them: what is no JSON object counts as an empty one.

    The model wrote them, and a conversation goes on also where it wrote nonsense. More of them than can be read and
    printed raises `InvalidRequest`, in which `name` is that of the field.
    """
    raw = arguments.encode()
    if elements(raw) > MAX_VALUES:
        raise invalid(name, f"more than {MAX_VALUES} values.")
    try:
        msgspec.json.decode(raw, type=dict[str, Any])
        deep = "\n" + " " * _INDENT * (MAX_DEPTH + 1) in _laid_out(raw)
    except msgspec.MsgspecError:
        return "{}"
    except RecursionError:
        deep = True
    if deep:
        raise invalid(name, f"nested more than {MAX_DEPTH} levels deep.")
    return arguments


def printed(arguments: str) -> str:
    """Return readable arguments at the greatest length at which a template prints them: as they are in a text, or read
    and printed with an indent, where a number with an exponent may be written out.
    """
    as_text = msgspec.json.encode(arguments).decode()
    as_read = _laid_out(arguments.encode()).replace("\n", "\n" + " " * _INDENT * _LEVELS_ABOVE)
    return max(as_text, as_read + _MOST_OF_AN_EXPONENT * len(_EXPONENT.findall(as_read)), key=len)


def _laid_out(raw: bytes) -> str:
    return msgspec.json.format(raw, indent=_INDENT).decode()
