"""JSON schemas and regular expressions that make compilers of grammars slow, large, recursive or wrong."""

from collections.abc import Callable
from random import Random
from typing import Any

Schema = Any
"""JSON that is, or claims to be, a schema."""

PATTERNS = (
    *("^[a-z]{1,5000}$", "^[a-z]{1,200}$", "^[a-z]{5000}$", "^[a-z]{1,100000}$", "^[a-z]{1,1000000000}$"),
    *("^(([a-z]{1,30}-){1,30}/){1,30}$", "^(([a-z]{1,50}){1,50}){1,50}$", "^(a+)+b$", "^(a|aa)+$", "^(.*)*$"),
    *("^((a|b)*(b|c)*)*(c|d)*x{1,200}$", "^.*a.{200}$", "^" + "a?" * 500 + "$", "^" + "a?" * 5_000 + "$"),
    *("(" * 2_000 + "a" + ")" * 2_000, "(" * 50_000 + "a" + ")" * 50_000, "^" + "x" * 20_000 + "$"),
    *(
        r"^[\p{L}]{1,50}$",
        "^[\u0400-\u04ff\u4e00-\u9fff]{1,200}$",
        "[^\u0000-\uffff]",
        r"\bfoo\b",
        r"^(a)\1$",
        r"(?<=a)b",
    ),
    *("^(?=a)b$", "[a", "(", "a{2,1}", "*", "", "\x00", "\ud800", r"\x{110000}", r"[\d-z]", "^a*?b$", "(?i)A", "$^"),
)


def text(**rules: object) -> Schema:
    return {"type": "string", **rules}


def holding(**properties: Schema) -> Schema:
    """Return an object that has exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def nested(depth: int) -> Schema:
    schema: Schema = text()
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def doubling(depth: int) -> Schema:
    """Return a schema that grows to 2 ** depth where references are followed."""
    definitions: dict[str, Schema] = {
        f"d{at}": holding(l={"$ref": f"#/$defs/d{at + 1}"}, r={"$ref": f"#/$defs/d{at + 1}"}) for at in range(depth)
    }
    return {"$defs": {**definitions, f"d{depth}": text()}, "$ref": "#/$defs/d0"}


def _optional(count: int) -> Schema:
    return {"type": "object", "properties": {f"p{at}": text() for at in range(count)}}


_TREE = {"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "required": ["c"]}
_HUNDRED_PATTERNS = {f"p{at}": text(pattern=f"^[a-z{chr(0x430 + at)}]{{1,200}}$") for at in range(100)}
_FORMATS = ("email", "date-time", "uuid", "uri", "ipv6", "hostname", "duration", "uri-template", "regex", "no-such")

_MAKERS: tuple[Callable[[Random], Schema], ...] = (
    lambda random: holding(a=text(pattern=random.choice(PATTERNS))),
    lambda random: holding(a=text(pattern=random.choice(PATTERNS))),
    lambda random: {"type": "object", "patternProperties": {random.choice(PATTERNS): text()}},
    lambda random: {"type": "object", "propertyNames": {"pattern": random.choice(PATTERNS)}},
    lambda random: holding(
        a=text(minLength=random.choice((0, -5, 1_000, 2**31, 10**12)), maxLength=random.choice((0, 1, 5_000, 2**63)))
    ),
    lambda random: holding(
        a={"type": "array", "items": {}, "minItems": random.choice((0, 50, 10**9)), "maxItems": 10**9}
    ),
    lambda random: holding(
        a={
            "type": random.choice(("integer", "number")),
            "minimum": random.choice((0, -(2**80), 1e300)),
            "maximum": 10**18,
        }
    ),
    lambda random: holding(a={"enum": [f"value-{at}" for at in range(random.choice((0, 1, 500, 5_000)))]}),
    lambda _random: holding(a={"enum": ["x" * 20_000 + str(at) for at in range(10)]}),
    lambda random: holding(a={"enum": random.choice(([None], [1.5, "a", [], {}], [True], "a"))}),
    lambda random: _optional(random.choice((50, 500, 2_000))),
    lambda _random: {**_optional(1_000), "minProperties": 100, "maxProperties": 900},
    lambda _random: {"type": "object", "properties": _HUNDRED_PATTERNS},
    lambda random: nested(random.choice((5, 30, 60, 70, 300))),
    lambda random: doubling(random.choice((5, 20, 40))),
    lambda _random: {"$defs": {"n": _TREE}, "$ref": "#/$defs/n"},
    lambda random: {"$ref": random.choice(("#", "#/nowhere", "http://127.0.0.1:1/x", "", "#/%ZZ"))},
    lambda _random: {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    lambda _random: {"$defs": {"a": holding(x={"$ref": "#/$defs/a"})}, "$ref": "#/$defs/a"},
    lambda _random: {"anyOf": [holding(**{f"k{at}": {"const": at}}) for at in range(1_000)]},
    lambda random: {random.choice(("allOf", "oneOf", "anyOf")): [text(), {"enum": ["yes", "no"]}]},
    lambda random: holding(a=text(format=random.choice(_FORMATS))),
    lambda random: {"type": random.choice(("foo", 5, [], ["string", "null"], None)), "not": {}},
    lambda random: {
        "type": "object",
        random.choice(("properties", "required", "items", "enum", "$defs")): random.choice((1, [1], "a", None)),
    },
    lambda _random: holding(a=False),
    lambda _random: {"const": "\U0001f600" * 500},
    lambda _random: {"type": "array", "prefixItems": [text()], "items": False, "uniqueItems": True, "contains": {}},
    lambda _random: {"if": text(), "then": {"minLength": 3}, "else": False},
    lambda _random: {},
)


def schema(random: Random) -> Schema:
    return random.choice(_MAKERS)(random)
