"""What is done to the proof of April's invoice, and whether the verifier finds it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.billing.proof_books import APRIL
from support.billing.proof_files import Members, change_json, change_lines, members, verify, write_members

Tampering = Callable[[Members], None]


def line(**changes: Any) -> Tampering:
    """Change the first line of the invoice that is above 0."""

    def change(invoice: Any) -> None:
        found = next(one for one in invoice["lines"] if one["amount"] > 0)
        for name, value in changes.items():
            found[name] += value

    return lambda content: change_json(content, "invoice.json", change)


def head(**changes: int) -> Tampering:
    def change(invoice: Any) -> None:
        for name, value in changes.items():
            invoice[name] += value

    return lambda content: change_json(content, "invoice.json", change)


def charge(key: str, **changes: Any) -> Tampering:
    def change(lines: list[Any]) -> None:
        for one in lines:
            if one.get("charge_key") == key:
                one.update(changes)

    return in_days(change)


def in_days(change: Callable[[list[Any]], None]) -> Tampering:
    def tamper(content: Members) -> None:
        for name in [name for name in content if name.startswith("days/")]:
            change_lines(content, name, change)

    return tamper


def posted(**amounts: int) -> Callable[[list[Any]], None]:
    """Change the entries of the transaction that issued the invoice."""

    def change(lines: list[Any]) -> None:
        for one in lines:
            if one.get("template") == "invoice" and one["reference"] == APRIL:
                for entry in one["entries"]:
                    entry["amount"] += amounts.get(entry["account"], 0)

    return change


def without(wanted: Callable[[Any], bool]) -> Callable[[list[Any]], None]:
    def change(lines: list[Any]) -> None:
        lines[:] = [one for one in lines if not wanted(one)]

    return change


def twice(lines: list[Any]) -> None:
    lines += [one for one in lines if one.get("charge_key") == "req_late"]


def prices(change: Callable[[list[Any]], None]) -> Tampering:
    return lambda content: change_json(content, "prices.json", lambda stated: change(stated["prices"]))


def raise_multiplied(stated: list[Any]) -> None:
    next(one for one in stated if one.get("multiplied"))["rates"]["training"] += 1


def proof(change: Callable[[Any], None]) -> Tampering:
    return lambda content: change_json(content, "proof.json", change)


def undone(change: Callable[[list[Any]], None]) -> Tampering:
    return lambda content: change_lines(content, "undone.ndjson", change)


def add_to_first(lines: list[Any]) -> None:
    lines[0]["prompt_tokens"] += 1


async def all_found(path: Path, tamperings: Mapping[str, Tampering], tampered: Path, *, code: int = 1) -> None:
    """Let the verifier end with `code`, and the words of each tampering, where it was done to the proof."""
    wrong = {}
    for words, tamper in tamperings.items():
        content = members(path)
        tamper(content)
        ended, said = await verify(write_members(tampered, content))
        if ended != code or words not in said.splitlines()[-1]:
            wrong[words] = ended, said.splitlines()[-1]
    assert not wrong, json.dumps(wrong, indent=1)
