"""Proofs that somebody made up so that the verifier might let them pass, or say nothing that can be read."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from support.billing.proof_books import APRIL, sealed, two_months
from support.billing.proof_files import Members, change_json, members, proof_of, verify, write_members
from support.billing.proof_tampering import (
    Tampering,
    all_found,
    head,
    in_days,
    posted,
    prices,
    proof,
    undone,
)
from support.billing.seal_books import SealBooks
from support.billing.stand import GLOBEX
from tokenyard.storage.database import Database

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # a file is a file
MANY = 17 * 1024 * 1024


@pytest.fixture
async def books(database: Database, redis: Redis) -> SealBooks:
    return await two_months(database, redis)


def transactions(**changes: Any) -> Tampering:
    def change(lines: list[Any]) -> None:
        for one in lines:
            if one["record"] == "transaction":
                one.update(changes)

    return in_days(change)


def post_twice(lines: list[Any]) -> None:
    lines += [one for one in lines if one.get("template") == "charge"]


def undo_twice(lines: list[Any]) -> None:
    lines += [one | {"charge_key": "again"} for one in lines if one.get("reverses")]


def move_to_another_account(lines: list[Any]) -> None:
    posted(wallet=-1)(lines)
    for one in lines:
        if one.get("template") == "invoice" and one["reference"] == APRIL:
            one["entries"].append({"number": 9, "account": "granted", "amount": 1})


def state_twice(stated: list[Any]) -> None:
    stated.append(stated[0] | {"rates": dict.fromkeys(stated[0]["rates"], 0)})


def other_multiplier(stated: list[Any]) -> None:
    for one in stated:
        if one.get("multiplied"):
            one["multiplied"]["multiplier"] = "0.7500"


WRONG: dict[str, Tampering] = {
    "is undone twice": in_days(undo_twice),
    "which is undone, is another organization's": undone(lambda lines: lines[0].update(organization=GLOBEX)),
    "stands twice on": in_days(post_twice),
    "the transaction tx_": transactions(organization=GLOBEX),
    "at another moment": head(issued_at_ms=1),
    "to granted for this invoice": in_days(move_to_another_account),
    "is stated twice": prices(state_twice),
    "names another multiplier": prices(other_multiplier),
}


async def test_what_is_made_up_is_wrong(books: SealBooks, tmp_path: Path) -> None:
    path = await proof_of(books, APRIL, tmp_path / "april.zip")
    await all_found(path, WRONG, tmp_path / "forged.zip")


def taxed(**changes: Any) -> Tampering:
    return lambda content: change_json(content, "invoice.json", lambda one: one["lines"][0].update(changes))


def without_kind(lines: list[Any]) -> None:
    for one in lines:
        one.pop("kind", None)


UNREADABLE: dict[str, Tampering] = {
    "there is no such tax": taxed(tax_rate=-1_000_000, tax_inclusive=True),
    "no such tax as": taxed(tax_inclusive="no"),
    "kind is missing": in_days(without_kind),
    "is no part of such a file": lambda content: content.update({"invoice.pdf": b"of a million dollars"}),
    "a line that is too long": lambda content: content.update({"undone.ndjson": b" " * MANY}),
    "is no multiplier": prices(
        lambda stated: stated[0].update(id="a@²", multiplied={"listed": "a", "multiplier": "²"})
    ),
    "is no day": proof(lambda stated: stated["days"].append({"day": "soon", "sealed": False})),
}


async def test_what_cannot_be_read_is_said_and_nothing_else(books: SealBooks, tmp_path: Path) -> None:
    path = await proof_of(books, APRIL, tmp_path / "april.zip")
    await all_found(path, UNREADABLE, tmp_path / "forged.zip", code=2)


async def test_a_day_cannot_stand_a_second_time_without_its_seal(books: SealBooks, tmp_path: Path) -> None:
    """Python reads `20260405` as a day too."""
    noted = await sealed(books)
    content = members(await proof_of(books, APRIL, tmp_path / "april.zip"))

    def add(stated: Any) -> None:
        day = stated["days"][-1]["day"].replace("-", "")
        stated["days"].append({"day": day, "sealed": False})
        header = b'{"record":"day","format":1,"day":"%s","organization":"%s"}\n'
        content[f"days/{day}.ndjson"] = header % (day.encode(), stated["organization"].encode())

    proof(add)(content)
    day = next(name[5:15] for name in content if name.startswith("days/"))
    code, said = await verify(write_members(tmp_path / "forged.zip", content), "--seal", f"{day}={noted[day]}")
    assert (code, "is not written as YYYY-MM-DD" in said) == (2, True), said


async def test_what_was_written_down_is_read_as_it_is_meant(books: SealBooks, tmp_path: Path) -> None:
    noted = await sealed(books)
    path = await proof_of(books, APRIL, tmp_path / "april.zip")
    day = min(name[5:15] for name in members(path) if name.startswith("days/"))
    for one in (f"{day}={noted[day].upper()}", f"{day.replace('-', '')}={noted[day]}", f"{day}= {noted[day]}"):
        code, said = await verify(path, "--seal", one)
        assert (code, f"the same: {day}" in said) == (0, True), said
    code, said = await verify(path, "--seal", f"{day}={'0' * 64}", "--seal", f"{day}={noted[day]}")
    assert (code, "two seals of one day" in said) == (2, True), said


async def test_a_name_hides_and_imitates_no_line(books: SealBooks, tmp_path: Path) -> None:
    content = members(await proof_of(books, APRIL, tmp_path / "april.zip"))
    name = "INV-1\nAll of it is right.\n\x1b[8m\u202e\ud800"
    change_json(content, "invoice.json", lambda invoice: invoice.update(number=name))
    code, said = await verify(write_members(tmp_path / "forged.zip", content))
    assert (code, said.count("All of it is right.\n")) == (0, 1), said
    assert said.splitlines()[0].startswith(r"Invoice INV-1\nAll of it is right.\n\x1b[8m\u202e\ud800 of"), said


async def test_a_broken_file_is_no_reason_to_break(books: SealBooks, tmp_path: Path) -> None:
    content = members(await proof_of(books, APRIL, tmp_path / "april.zip"))
    for forged in (_with_a_name_that_is_no_text(content), _packed_otherwise(content)):
        (tmp_path / "forged.zip").write_bytes(forged)
        code, said = await verify(tmp_path / "forged.zip")
        assert (code, said.startswith("COULD NOT BE VERIFIED"), "Traceback" in said) == (2, True, False), said


def _with_a_name_that_is_no_text(content: Members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, part in content.items():
            packed.writestr(name, part)
        packed.writestr("\u00e9", b"")
    return file.getvalue().replace("\u00e9".encode(), b"\xff\xff")


def _packed_otherwise(content: Members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as packed:
        for name, part in content.items():
            packed.writestr(name, part)
    broken = bytearray(file.getvalue())
    at = broken.index(b"invoice.json") + 40
    broken[at : at + 60] = b"\xff" * 60
    return bytes(broken)
