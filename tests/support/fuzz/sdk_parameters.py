"""Walks the parameter types of a client package: a request for every field and every kind of value there is."""

from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NotRequired, Required, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict

Value = dict[str, Any]
Put = Callable[[Value], Value]


class ParameterCase(NamedTuple):
    """`given` holds the field `name`, as `Owner.field: kind` tells it."""

    name: str
    given: Value


class _ParameterKind(NamedTuple):
    """One kind of value that a field takes; one that is an object of fields itself has their type in `inside`."""

    label: str
    value: Any
    inside: type | None = None
    several: bool = False


def cases(
    owner: type, least: Value, accepts: Callable[[Value], bool], known: Mapping[str, Any]
) -> Iterator[ParameterCase]:
    """Yield a request for each field of `owner` and of the types inside it, each type once, where it is accepted.

    `least` is a request that has what is required; `known` are values of fields, by `Owner.field`, that are not free.
    """
    seen = {owner}
    waiting: list[tuple[type, Value, Put]] = [(owner, least, dict)]
    while waiting:
        owner, base, put = waiting.pop(0)
        for field, type_ in _fields(owner).items():
            for kind in _kinds(type_, f"{owner.__name__}.{field}", known):
                given = put(base | {field: _value(kind, kind.value)})
                yield ParameterCase(f"{owner.__name__}.{field}: {kind.label}", given)
                if kind.inside is not None and kind.inside not in seen and accepts(given):
                    seen.add(kind.inside)
                    waiting.append((kind.inside, kind.value, _putting(put, base, field, kind)))


def _putting(put: Put, base: Value, field: str, kind: _ParameterKind) -> Put:
    return lambda value: put(base | {field: _value(kind, value)})


def _value(kind: _ParameterKind, value: Any) -> Any:
    return [value] if kind.several else value


def _fields(owner: type) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def _kinds(type_: Any, name: str, known: Mapping[str, Any]) -> Iterator[_ParameterKind]:
    origin, inner = get_origin(type_), get_args(type_)
    if name in known:
        yield _ParameterKind("known", known[name])
    elif origin in (Required, NotRequired):
        yield from _kinds(inner[0], name, known)
    elif origin in (Union, UnionType):
        for one in inner:
            yield from _kinds(one, name, known)
    elif origin is Literal:
        yield from (_ParameterKind(str(one), one) for one in inner)
    elif is_typeddict(type_):
        yield _ParameterKind(type_.__name__, _least(type_, known), type_)
    elif origin is dict:
        yield _ParameterKind("object", {"type": "object"})
    elif origin is not None or "Sequence" in str(type_):
        yield from (kind._replace(several=True) for kind in _kinds(inner[0], name, known))
    else:
        yield from _plain(type_)


def _plain(type_: Any) -> Iterator[_ParameterKind]:
    """Yield values of a type without parts; null is as good as nothing, and answers given back are as what is given."""
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        return
    samples: dict[Any, list[Any]] = {str: ["x"], int: [9], float: [0.5], bool: [True, False], NoneType: [], object: [1]}
    if type_ not in samples:
        raise TypeError(f"a kind of parameter that is not known here: {type_!r}")
    yield from (_ParameterKind(str(one) if type_ is bool else type_.__name__, one) for one in samples[type_])


def _least(owner: type, known: Mapping[str, Any]) -> Value:
    required = {name: type_ for name, type_ in _fields(owner).items() if get_origin(type_) is Required}
    return {name: _first(type_, f"{owner.__name__}.{name}", known) for name, type_ in required.items()}


def _first(type_: Any, name: str, known: Mapping[str, Any]) -> Any:
    kind = next(_kinds(type_, name, known))
    return _value(kind, kind.value)
