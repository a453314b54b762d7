"""What commands print: JSON for programs, aligned text for people."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tokenyard.core.money import to_dollars


class Shown(msgspec.Struct, frozen=True):
    """A command's answer: `data` for `--json`, `text` otherwise."""

    data: Any
    text: str


def write(text: str) -> None:
    """Print a line (or block) at once, so that it is seen before the next wait."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def as_json(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str = "None.") -> str:
    """Lay out `rows`; `columns` maps each field to its heading. Numbers stand to the right."""
    if not rows:
        return empty
    cells = [[shown(row.get(field)) for field in columns] for row in rows]
    numeric = [all(isinstance(row.get(field), int | float | None) for row in rows) for field in columns]
    widths = [
        max(len(heading), *(len(line[index]) for line in cells)) for index, heading in enumerate(columns.values())
    ]
    lines = [list(columns.values()), *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def shown(value: Any) -> str:
    """Write one cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return str(value)


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


def details(data: Mapping[str, Any], *, indent: str = "") -> str:
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
            lines.append(f"{label} {', '.join(map(shown, value)) or '-'}")
        else:
            lines.append(f"{label} {shown(value)}")
    return "\n".join(line for line in lines if line)
