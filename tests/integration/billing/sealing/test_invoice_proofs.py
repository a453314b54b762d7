"""The proof of an invoice stands by itself: the verifier agrees, and says what was tampered with."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from support.billing.proof_books import APRIL, MARCH, sealed, two_months
from support.billing.proof_files import change_json, members, proof_of, verify, write_members
from support.billing.proof_tampering import (
    Tampering,
    add_to_first,
    all_found,
    charge,
    head,
    in_days,
    line,
    posted,
    prices,
    proof,
    raise_multiplied,
    twice,
    undone,
    without,
)
from support.billing.seal_books import SealBooks
from support.billing.stand import GLOBEX, MARCH_MS
from tokenyard.storage.database import Database

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same


@pytest.fixture
async def books(database: Database, redis: Redis) -> SealBooks:
    return await two_months(database, redis)


async def test_honest_books_verify(books: SealBooks, tmp_path: Path) -> None:
    noted = await sealed(books)
    assert await books.verified() is None
    for invoice in (MARCH, APRIL):
        path = await proof_of(books, invoice, tmp_path / f"{invoice}.zip")
        first, *_, last = _days(path)
        code, said = await verify(path, "--seal", f"{first}={noted[first]}", "--seal", f"{last}={noted[last]}")
        assert (code, said.splitlines()[-1]) == (0, "All of it is right."), said
        assert "not yet sealed" not in said
        assert f"{first}, {last}" in said
    assert members(path)["undone.ndjson"].count(b"req_early") >= 1
    assert b"@0.75" in members(path)["prices.json"]
    assert b"plan_fee" in members(path)["invoice.json"]


def _days(path: Path) -> list[str]:
    return [one["day"] for one in json.loads(members(path)["proof.json"])["days"]]


async def test_a_proof_has_nothing_of_others_and_always_the_same_bytes(books: SealBooks, tmp_path: Path) -> None:
    await sealed(books)
    path = await proof_of(books, MARCH, tmp_path / "one.zip")
    again = await proof_of(books, MARCH, tmp_path / "two.zip")
    assert path.read_bytes() == again.read_bytes()
    for name, content in members(path).items():
        assert b"globex" not in content, name
        assert b"req_theirs" not in content, name


async def test_days_that_are_not_sealed_yet_are_named(books: SealBooks, tmp_path: Path) -> None:
    path = await proof_of(books, APRIL, tmp_path / "april.zip")
    code, said = await verify(path)
    assert code == 0, said
    assert "not yet sealed" in said
    code, said = await verify(path, "--seal", f"2026-04-03={'0' * 64}")
    assert (code, "it was not compared" in said) == (2, True)


async def test_what_was_tampered_with_before_it_was_asked_for_is_found(books: SealBooks, tmp_path: Path) -> None:
    """The operator changed books and invoice alike, so that all of it adds up, but not the seals."""
    await sealed(books)
    await books.tamper("UPDATE billing_charges SET end_user = 'you' WHERE charge_key = 'req_late'")
    code, said = await verify(await proof_of(books, APRIL, tmp_path / "april.zip"))
    assert (code, "are not those that were sealed" in said) == (1, True), said


async def test_a_chain_that_was_made_anew_is_found_by_what_was_written_down(books: SealBooks, tmp_path: Path) -> None:
    noted = await sealed(books)
    await books.tamper("UPDATE billing_charges SET end_user = 'you' WHERE charge_key = 'req_late'")
    await books.tamper("DELETE FROM billing_seals")
    await books.tamper("DELETE FROM billing_sealed_parts")
    await sealed(books)
    path = await proof_of(books, APRIL, tmp_path / "april.zip")
    assert (await verify(path))[0] == 0
    day = _days(path)[0]
    code, said = await verify(path, "--seal", f"{day}={noted[day]}")
    assert (code, "is not the one that you wrote down" in said) == (1, True), said


ARITHMETIC: dict[str, Tampering] = {
    "its usage times its rates is": charge("req_late", amount=7),
    "is billed twice": in_days(twice),
    "is another organization's": charge("req_late", organization=GLOBEX),
    "was recorded on another day": charge("req_late", charged_at_ms=MARCH_MS),
    "has an amount and stands in no transaction": charge("req_late", transaction=None),
    "and its charges are of": charge("req_late", transaction="tx_other"),
    "is charged and not stated": prices(lambda stated: stated.clear()),
    "is not the listed one times its multiplier": prices(raise_multiplied),
    "is undone, and is not in the file": undone(lambda lines: lines.clear()),
    "takes back something else than it was": undone(add_to_first),
    "is not of that day and organization": in_days(lambda lines: lines[0].update(day="2026-01-01")),
    "do not sum to 0": in_days(posted(receivable=-1)),
    "the journal posted": in_days(posted(receivable=-1, rounding=1)),
    "stands in the journal 0 times": in_days(without(lambda one: one.get("template") == "invoice")),
    "was charged": line(quantity=1),
    "has another rate than its price": line(rate=1),
    "is not its quantity times its rate": line(amount=1),
    "do not sum to the total": head(total=1),
    "stands on no line": lambda content: change_json(content, "invoice.json", lambda one: one["lines"].pop()),
    "credit pays": line(credit_applied=1),
    "the tax of the line": line(tax=1),
    "do not sum to the tax of the invoice": head(tax=1, tax_included=1),
    "lines, credit, tax and rounding come to": head(amount_due=1),
    "is not rounded half up to cents": head(amount_due=1, rounding=1),
}


@SQLITE
async def test_each_wrong_sum_is_said_in_its_own_words(books: SealBooks, tmp_path: Path) -> None:
    path = await proof_of(books, APRIL, tmp_path / "april.zip")
    await all_found(path, ARITHMETIC, tmp_path / "tampered.zip")


def reseal(seal: Any) -> None:
    stated = {name: seal[name] for name in ("day", "previous", "root", "organizations")} | {"format": 1}
    seal["hash"] = hashlib.sha256(json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def break_chain(stated: Any) -> None:
    stated["seals"][1]["previous"] = "0" * 64
    reseal(stated["seals"][1])


def other_root(stated: Any) -> None:
    stated["days"][-1]["part"]["charges"] += 1


def unseal_first(stated: Any) -> None:
    del stated["seals"][0]
    stated["days"][0]["sealed"] = False


SEALS: dict[str, Tampering] = {
    "are not those that were sealed": charge("req_late", end_user="you"),
    "does not lead to the root of its seal": proof(other_root),
    "is longer than its seal's tree": proof(lambda stated: stated["days"][0]["part"]["path"].append("0" * 64)),
    "in its seal does not exist": proof(lambda stated: stated["days"][0]["part"].update(index=9)),
    "is not the hash of what it states": proof(lambda stated: stated["seals"][1].update(root="0" * 64)),
    "a day is missing": proof(lambda stated: stated["seals"].pop(1)),
    "does not follow from that of": proof(break_chain),
    "against the seals": proof(lambda stated: stated["days"][0].update(sealed=False)),
    "is not sealed, and a later day is": proof(unseal_first),
    "stands twice in the proof": proof(lambda stated: stated["days"].append(stated["days"][0])),
}


@SQLITE
async def test_each_broken_seal_is_said_in_its_own_words(books: SealBooks, tmp_path: Path) -> None:
    await sealed(books)
    path = await proof_of(books, APRIL, tmp_path / "april.zip")
    await all_found(path, SEALS, tmp_path / "tampered.zip")


def other_format(invoice: Any) -> None:
    invoice["format"] = 2


@SQLITE
async def test_what_is_no_proof_cannot_be_verified(books: SealBooks, tmp_path: Path) -> None:
    path = await proof_of(books, MARCH, tmp_path / "march.zip")
    unreadable: dict[str, Tampering] = {
        "invoice.json is missing": lambda content: content.__delitem__("invoice.json"),
        "is no JSON": lambda content: content.update({"proof.json": b"{"}),
        "knows the format 1": lambda content: change_json(content, "invoice.json", other_format),
        "is no whole number": line(amount=0.5),
        "says something twice": lambda content: content.update({"prices.json": b'{"prices": [], "prices": []}'}),
    }
    for words, tamper in unreadable.items():
        content = members(path)
        tamper(content)
        code, said = await verify(write_members(tmp_path / "other.zip", content))
        assert (code, words in said.splitlines()[-1]) == (2, True), (words, said)
    (tmp_path / "other.zip").write_bytes(b"no zip")
    assert (await verify(tmp_path / "other.zip"))[0] == 2
    assert (await verify(tmp_path / "none.zip"))[0] == 2
    assert (await verify(path, "--seal", "yesterday"))[0] == 2
