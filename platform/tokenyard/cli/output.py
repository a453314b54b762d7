"""What commands print: JSON for programs, aligned text for people."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from tokenyard.clients.platform_api.shapes import ApiObject, Json
from tokenyard.core.money import to_dollars

Cell = str | int | float | None


class CommandOutput(NamedTuple):
    """A command's answer: `data` for `--json`, `text` otherwise."""

    data: object
    text: str


def write(text: str) -> None:
    """Print a line (or block) at once, so that it is seen before the next wait."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def as_json(data: object) -> str:
    return msgspec.json.format(msgspec.json.encode(data, enc_hook=_json_of), indent=2).decode()


def _json_of(value: object) -> Json:
    if isinstance(value, ApiObject):
        return value.as_json()
    raise NotImplementedError(f"{type(value).__name__} is not for printing")


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str = "None.") -> str:
    """Lay out `rows` under `headings`. Columns of numbers stand to the right."""
    if not rows:
        return empty
    lines = [headings, *([cell_text(cell) for cell in row] for row in rows)]
    numeric = [all(isinstance(cell, int | float | None) for cell in column) for column in zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def cell_text(value: object) -> str:
    """Write a value on one line; a terminal's control characters, which a tenant may have written, become spaces."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return "".join(one if one.isprintable() else " " for one in str(value))


def dollars(amount: int | None) -> str:
    """Write nano-dollars exactly."""
    if amount is None:
        return "-"
    return f"{'-' if amount < 0 else ''}${to_dollars(abs(amount))}"


def moment(unix_seconds: float | None) -> str:
    """Write a time in UTC, to the second."""
    if unix_seconds is None:
        return "-"
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def moment_ms(unix_ms: int) -> str:
    return moment(unix_ms / 1000)


def described(found: ApiObject) -> CommandOutput:
    """Show an answer whole, its times (`..._at`, unix seconds; `..._ms`, unix milliseconds, 0 for none) in words."""
    return CommandOutput(found, details(dict(_in_words(name, value) for name, value in found.as_json().items())))


def _in_words(name: str, value: object) -> tuple[str, object]:
    if isinstance(value, int) and name.endswith("_at"):
        return name, moment(value)
    if isinstance(value, int) and name.endswith("_ms"):
        return name.removesuffix("_ms"), moment_ms(value) if value else None
    return name, value


def details(data: Mapping[str, object], *, indent: str = "") -> str:
    """Write an object as lines of `name: value`, nested ones indented."""
    lines = []
    for name, value in data.items():
        label = f"{indent}{name.replace('_', ' ')}:"
        if isinstance(value, Mapping):
            lines.append(label)
            lines.append(details(value, indent=f"{indent}  "))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(label)
            for item in value:
                lines.append(f"{indent}  -")
                lines.append(details(item, indent=f"{indent}    "))
        elif isinstance(value, list):
            lines.append(f"{label} {', '.join(map(cell_text, value)) or '-'}")
        else:
            lines.append(f"{label} {cell_text(value)}")
    return "\n".join(line for line in lines if line)
