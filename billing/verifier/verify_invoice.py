#!/usr/bin/env python3
"""Verifies the proof of an invoice, as Tokenyard gives it: a zip file, described in FORMAT.md beside this program.

    python3 verify_invoice.py PROOF.zip [--seal YYYY-MM-DD=HASH ...]

It needs nothing but Python 3.9, connects to nothing, and shares no code with what made the invoice.

Exit code: 0 where all is right, 1 where something is wrong, 2 where it could not be verified.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

FORMAT = 1
CENT = 10_000_000
MILLION = 1_000_000
DAY_MS = 86_400_000
PART = 1024 * 1024
LONGEST_LINE = 16 * PART
LONGEST_DOCUMENT = 256 * PART
COUNTS = (
    *("prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens"),
    *("hosted_hours", "pinned_hours", "stored_months", "fees"),
)
MEMBERS = ("README.txt", "invoice.json", "prices.json", "proof.json", "undone.ndjson")
"""What is in the file beside the days."""
NOT_OF_CHARGES = ("correction", "invoice", "credit_note")
"""The templates of transactions that move revenue without a charge."""


class Wrong(Exception):
    """Something does not agree; the message says what, in plain words."""


class Unreadable(Exception):
    """The file is not what FORMAT.md describes, so nothing can be said of it."""


# What is in the file


class Bundle:
    """The members of the zip file."""

    def __init__(self, path: str) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise Unreadable(f"{path} cannot be read: {error}") from error
        self._names = self._zip.namelist()
        if len(set(self._names)) != len(self._names):
            raise Unreadable("a name stands twice in the file")

    def has_only(self, names: set[str]) -> None:
        """Refuse what nobody has looked at: a reader would take it for proved."""
        for name in self._names:
            if name not in names and name != "days/":
                raise Unreadable(f"{name[:80]} is no part of such a file")

    def document(self, name: str) -> dict[str, Any]:
        content = bytearray()
        for line in self._read(name):
            content += line
            if len(content) > LONGEST_DOCUMENT:
                raise Unreadable(f"{name} is too long")
        return obj(parsed(bytes(content), name), name)

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        for line in self._read(name):
            digest.update(line)
        return digest.hexdigest()

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(self._read(name), start=1):
            yield obj(parsed(line, f"line {number} of {name}"), f"line {number} of {name}")

    def _read(self, name: str) -> Iterator[bytes]:
        try:
            with self._zip.open(name) as file:
                rest = b""
                while part := file.read(PART):
                    *lines, rest = (rest + part).split(b"\n")
                    if len(rest) > LONGEST_LINE:  # it may be packed a thousand times smaller
                        raise Unreadable(f"{name} has a line that is too long")
                    for line in lines:
                        yield line + b"\n"
                if rest:
                    yield rest
        except KeyError:
            raise Unreadable(f"{name} is missing") from None
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise Unreadable(f"{name} cannot be read: {error}") from error
        except Exception as error:
            if type(error).__module__ != "zlib":
                raise
            raise Unreadable(f"{name} cannot be read: {error}") from error


def parsed(content: bytes, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise Unreadable(f"{where} says something twice")
        return dict(pairs)

    try:
        return json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{where} is no JSON: {error}") from error


def obj(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"{where} is no object")
    return value


def field(of: dict[str, Any], name: str) -> Any:
    if name not in of:
        raise Unreadable(f"{name} is missing in {shortly(of)}")
    return of[name]


def whole(of: dict[str, Any], name: str) -> int:
    value = field(of, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unreadable(f"{name} is no whole number in {shortly(of)}")
    return value


def text(of: dict[str, Any], name: str) -> str:
    value = field(of, name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} is no text in {shortly(of)}")
    return value


def objects(of: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = field(of, name)
    if not isinstance(value, list):
        raise Unreadable(f"{name} is no list in {shortly(of)}")
    return [obj(one, name) for one in value]


def shortly(of: dict[str, Any]) -> str:
    shown = json.dumps(of, ensure_ascii=False)
    return shown if len(shown) < 100 else f"{shown[:100]}..."


def unhex(value: str, what: str) -> bytes:
    try:
        found = bytes.fromhex(value)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise Unreadable(f"{what} is no SHA-256: {value[:80]!r}")
    return found


def canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def say(line: str) -> None:
    """Print a line as it stands: what is in the file cannot break it, hide the next one or look like one of ours."""
    print("".join(one if one.isprintable() else ascii(one)[1:-1] for one in line))


def dollars(amount: int) -> str:
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // 10**9}.{abs(amount) % 10**9:09d} dollars"


# Seals


def verify_chain(seals: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the seals by day; each is the hash of its statement, and names the one of the day before."""
    found: dict[str, dict[str, Any]] = {}
    before: dict[str, Any] | None = None
    for seal in seals:
        day = text(seal, "day")
        a_date(day)
        stated = {
            "format": FORMAT,
            "day": day,
            "previous": text(seal, "previous"),
            "root": text(seal, "root"),
            "organizations": whole(seal, "organizations"),
        }
        if hashlib.sha256(canonical(stated)).hexdigest() != text(seal, "hash"):
            raise Wrong(f"the seal of {day} is not the hash of what it states")
        if before is not None:
            if day != next_day(before["day"]):
                raise Wrong(f"the seal after that of {before['day']} is of {day}: a day is missing")
            if seal["previous"] != before["hash"]:
                raise Wrong(f"the seal of {day} does not follow from that of {before['day']}")
        found[day], before = seal, seal
    return found


def next_day(day: str) -> str:
    return (a_date(day) + timedelta(days=1)).isoformat()


def a_date(day: str) -> date:
    try:
        found = date.fromisoformat(day)
    except ValueError:
        raise Unreadable(f"{day[:40]!r} is no day") from None
    if found.isoformat() != day:  # else one day could stand in the file twice, once without a seal
        raise Unreadable(f"{day[:40]!r} is not written as YYYY-MM-DD")
    return found


def verify_part(day: str, organization: str, part: dict[str, Any], digest: str, seal: dict[str, Any]) -> None:
    """The day's lines have the digest that was sealed, and the path leads from it to the seal's root."""
    if digest != text(part, "digest"):
        raise Wrong(f"the charges and transactions of {day} are not those that were sealed: their digest differs")
    leaf = {name: whole(part, name) for name in ("charges", "transactions")}
    node = hashlib.sha256(b"\x00" + canonical({**leaf, "organization": organization, "digest": digest})).digest()
    index, last = whole(part, "index"), seal["organizations"] - 1
    path = field(part, "path")
    if not isinstance(path, list) or not 0 <= index <= last:
        raise Wrong(f"the place of {day} in its seal does not exist")
    for other in path:
        sibling = unhex(str(other), f"a hash on the path of {day}")
        while last and index == last and index % 2 == 0:  # the last of an odd number goes up as it is
            index, last = index // 2, last // 2
        if last == 0:
            raise Wrong(f"the path of {day} is longer than its seal's tree")
        pair = sibling + node if index % 2 else node + sibling
        node = hashlib.sha256(b"\x01" + pair).digest()
        index, last = index // 2, last // 2
    while last and index == last and index % 2 == 0:
        index, last = index // 2, last // 2
    if last or node.hex() != seal["root"]:
        raise Wrong(f"the path of {day} does not lead to the root of its seal")


def verify_noted(noted: dict[str, str], seals: dict[str, dict[str, Any]]) -> None:
    for day, value in sorted(noted.items()):
        if day in seals and seals[day]["hash"] != value:
            raise Wrong(f"the seal of {day} is not the one that you wrote down: {seals[day]['hash']}")


# Amounts


def quantities(charge: dict[str, Any]) -> dict[str, int]:
    """Return how much a charge is of each kind of line; kinds of which there is nothing are left out."""
    used = {name: whole(charge, name) for name in COUNTS}
    fee = "minimum" if text(charge, "kind") == "minimum" else "plan_fee"
    kinds = {
        "input": used["prompt_tokens"] - used["cached_tokens"],
        "cached_input": used["cached_tokens"],
        "output": used["completion_tokens"],
        "training": used["trained_tokens"],
        "hosting": used["hosted_hours"],
        "pinned_hosting": used["pinned_hours"],
        "storage": used["stored_months"],
        fee: used["fees"],
    }
    return {kind: quantity for kind, quantity in kinds.items() if quantity}


def rates_of(prices: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the rates by price; those that were multiplied follow from the listed ones."""
    found: dict[str, dict[str, int]] = {}
    for price in prices:
        identity, rates = text(price, "id"), obj(field(price, "rates"), "rates")
        own = {name: whole(rates, name) for name in rates}
        if identity in found:
            raise Wrong(f"the price {identity} is stated twice")
        multiplied = price.get("multiplied")
        if multiplied is not None:
            multiplied = obj(multiplied, "multiplied")
            if identity != f"{text(multiplied, 'listed')}@{text(multiplied, 'multiplier')}":
                raise Wrong(f"the price {identity} names another multiplier than it is said to have")
            ten_thousandths = multiplier(text(multiplied, "multiplier"))
            listed = obj(field(multiplied, "rates"), "rates")
            for name, rate in own.items():
                if rate != (whole(listed, name) * ten_thousandths + 5_000) // 10_000:
                    raise Wrong(f"the {name} rate of the price {identity} is not the listed one times its multiplier")
        found[identity] = own
    return found


def multiplier(stated: str) -> int:
    ones, _, part = stated.partition(".")
    if not f"{ones}{part}".isdecimal() or not ones or len(part) > 4:
        raise Unreadable(f"{stated[:40]!r} is no multiplier")
    return int(ones) * 10_000 + int(part.ljust(4, "0"))


def rate_of(rates: dict[str, dict[str, int]], price: str, kind: str) -> int:
    name = "fee" if kind in ("plan_fee", "minimum") else kind
    if price not in rates:
        raise Wrong(f"the price {price} is charged and not stated")
    if name not in rates[price]:
        raise Wrong(f"the price {price} states no rate of {kind}")
    return rates[price][name]


class Charges:
    """Takes the charges of all days, and sums those that the invoice bills."""

    def __init__(self, invoice: dict[str, Any], rates: dict[str, dict[str, int]]) -> None:
        self.organization, self.period = text(invoice, "organization"), text(invoice, "period")
        self._rates = rates
        self.count = 0
        self.sums: dict[tuple[str, str, str, str], int] = {}
        self._billed: set[str] = set()
        self._undoing: dict[str, dict[str, int]] = {}

    def take(self, charge: dict[str, Any]) -> None:
        if text(charge, "organization") != self.organization:
            raise Wrong(f"the charge {text(charge, 'charge_key')} is another organization's")
        if text(charge, "billed_in") != self.period or field(charge, "credit_note") is not None:
            return
        key, price, amount = text(charge, "charge_key"), text(charge, "price"), whole(charge, "amount")
        if key in self._billed:
            raise Wrong(f"the charge {key} is billed twice")
        self._billed.add(key)
        self.count += 1
        exact = 0
        for kind, quantity in quantities(charge).items():
            line = text(charge, "period"), text(charge, "model"), price, kind
            exact += quantity * rate_of(self._rates, price, kind)
            self.sums[line] = self.sums.get(line, 0) + quantity
        if exact != amount:
            raise Wrong(f"the charge {key} is of {dollars(amount)}, and its usage times its rates is {dollars(exact)}")
        if charge.get("reverses") is not None:
            undone = text(charge, "reverses")
            if undone in self._undoing:
                raise Wrong(f"the charge {undone} is undone twice")
            self._undoing[undone] = effect(charge)

    def wanted(self, charge: dict[str, Any]) -> bool:
        return text(charge, "charge_key") in self._undoing

    def undone(self, charge: dict[str, Any]) -> None:
        """A reversal takes back all that the charge was, to the last token."""
        key = text(charge, "charge_key")
        if text(charge, "organization") != self.organization:
            raise Wrong(f"the charge {key}, which is undone, is another organization's")
        stated = self._undoing.pop(key, None)
        if stated is not None and stated != {name: -value for name, value in effect(charge).items()}:
            raise Wrong(f"what undoes the charge {key} takes back something else than it was")

    def all_undone(self) -> None:
        if self._undoing:
            raise Wrong(f"the charge {sorted(self._undoing)[0]} is undone, and is not in the file")


def effect(charge: dict[str, Any]) -> dict[str, int]:
    return {name: whole(charge, name) for name in (*COUNTS, "amount")}


class Day:
    """Takes the lines of one day: their dates, and that the journal posts what was charged."""

    def __init__(self, day: str, organization: str) -> None:
        self.day, self.organization = day, organization
        self.charges = self.transactions = 0
        self._charged: dict[str, int] = {}
        self._revenue: dict[str, int] = {}
        self._posted: set[str] = set()
        begin = (a_date(day) - date(1970, 1, 1)).days * DAY_MS
        self._within = range(begin, begin + DAY_MS)

    def header(self, record: dict[str, Any]) -> None:
        stated = {"record": "day", "format": FORMAT, "day": self.day, "organization": self.organization}
        if record != stated:
            raise Wrong(f"days/{self.day}.ndjson is not of that day and organization")

    def charge(self, charge: dict[str, Any]) -> None:
        self._dated(whole(charge, "charged_at_ms"), f"the charge {text(charge, 'charge_key')}")
        self.charges += 1
        amount = whole(charge, "amount")
        transaction = field(charge, "transaction")
        if transaction is not None:
            self._charged[str(transaction)] = self._charged.get(str(transaction), 0) + amount
        elif amount:
            raise Wrong(f"the charge {charge['charge_key']} has an amount and stands in no transaction")

    def transaction(self, transaction: dict[str, Any]) -> None:
        identity = text(transaction, "id")
        self._dated(whole(transaction, "posted_at_ms"), f"the transaction {identity}")
        if text(transaction, "organization") != self.organization:
            raise Wrong(f"the transaction {identity} is another organization's")
        if identity in self._posted:
            raise Wrong(f"the transaction {identity} stands twice on {self.day}")
        self._posted.add(identity)
        self.transactions += 1
        entries = objects(transaction, "entries")
        if sum(whole(entry, "amount") for entry in entries) != 0:
            raise Wrong(f"the entries of the transaction {identity} do not sum to 0")
        if text(transaction, "template") not in NOT_OF_CHARGES:
            earned = sum(whole(entry, "amount") for entry in entries if text(entry, "account") == "revenue")
            self._revenue[identity] = earned

    def end(self) -> None:
        for identity in sorted(self._charged.keys() | self._revenue.keys()):
            charged, earned = self._charged.get(identity, 0), self._revenue.get(identity, 0)
            if charged != earned:
                raise Wrong(
                    f"the transaction {identity} of {self.day} posts {dollars(earned)}, and its charges are of"
                    f" {dollars(charged)}"
                )

    def _dated(self, at_ms: int, what: str) -> None:
        if at_ms not in self._within:
            raise Wrong(f"{what} stands on {self.day}, and was recorded on another day")


# The invoice


def verify_lines(invoice: dict[str, Any], charges: Charges, rates: dict[str, dict[str, int]]) -> None:
    """Each line is the sum of its charges, quantity x rate; together they are the total."""
    left = {key: quantity for key, quantity in charges.sums.items() if quantity}
    for number, line in enumerate(objects(invoice, "lines"), start=1):
        period, model, price, kind = (text(line, name) for name in ("usage_period", "model", "price", "kind"))
        charged = left.pop((period, model, price, kind), 0)
        if charged != whole(line, "quantity"):
            raise Wrong(
                f"line {number} ({model}, {kind}, {period}) bills {line['quantity']}, and {charged} was charged"
            )
        if whole(line, "rate") != rate_of(rates, price, kind):
            raise Wrong(f"line {number} ({model}, {kind}, {period}) has another rate than its price")
        if whole(line, "amount") != line["quantity"] * line["rate"]:
            raise Wrong(f"line {number} ({model}, {kind}, {period}) is not its quantity times its rate")
    for period, model, price, kind in sorted(left):
        raise Wrong(f"{kind} of {model} by the price {price} in {period} was charged and stands on no line")
    if sum(line["amount"] for line in invoice["lines"]) != whole(invoice, "total"):
        raise Wrong("the lines do not sum to the total")


def verify_credit(invoice: dict[str, Any]) -> None:
    """Credit pays for the groups of lines of one month in their order, and of each for what it comes to."""
    left = whole(invoice, "credit_applied")
    if left < 0:
        raise Wrong("the credit is below 0")
    groups: list[list[dict[str, Any]]] = []
    for line in objects(invoice, "lines"):
        if not groups or groups[-1][-1]["usage_period"] != line["usage_period"]:
            groups.append([])
        groups[-1].append(line)
    for group in groups:
        part = min(left, max(sum(line["amount"] for line in group), 0))
        left -= part
        for line in group:
            paid = min(part, max(line["amount"], 0))
            part -= paid
            if whole(line, "credit_applied") != paid:
                raise Wrong(
                    f"credit pays {dollars(paid)} of the line {line['model']}, {line['kind']}, and it says"
                    f" {dollars(line['credit_applied'])}"
                )
    if left:
        raise Wrong(f"of the credit, {dollars(left)} pays for no line")


def verify_tax(invoice: dict[str, Any]) -> None:
    """The tax of each line is that of what credit leaves of it, rounded half up to the nano-dollar."""
    tax = included = 0
    for line in objects(invoice, "lines"):
        base, rate, inclusive = (
            line["amount"] - line["credit_applied"],
            whole(line, "tax_rate"),
            field(line, "tax_inclusive"),
        )
        if rate < 0 or not isinstance(inclusive, bool):
            raise Unreadable(f"there is no such tax as in {shortly(line)}")
        of = MILLION + (rate if inclusive else 0)
        exact = (2 * abs(base) * rate + of) // (2 * of)
        exact = exact if base > 0 else -exact
        if whole(line, "tax") != exact:
            raise Wrong(
                f"the tax of the line {line['model']}, {line['kind']} is {dollars(exact)}, and it says"
                f" {dollars(line['tax'])}"
            )
        tax += exact
        included += exact if inclusive else 0
    if (tax, included) != (whole(invoice, "tax"), whole(invoice, "tax_included")):
        raise Wrong("the taxes of the lines do not sum to the tax of the invoice")


def verify_due(invoice: dict[str, Any]) -> None:
    exact = invoice["total"] - invoice["credit_applied"] + invoice["tax"] - invoice["tax_included"]
    rounding, due = whole(invoice, "rounding"), whole(invoice, "amount_due")
    if due != exact + rounding:
        raise Wrong(
            f"what is due is {dollars(due)}, and lines, credit, tax and rounding come to {dollars(exact + rounding)}"
        )
    if rounding and due != (2 * exact + CENT) // (2 * CENT) * CENT:
        raise Wrong(f"{dollars(exact)} is not rounded half up to cents")


class Issue:
    """The transaction that posted the invoice."""

    def __init__(self, invoice: dict[str, Any]) -> None:
        self._invoice = invoice
        self._found: list[dict[str, Any]] = []

    def take(self, transaction: dict[str, Any]) -> None:
        if (text(transaction, "template"), field(transaction, "reference")) == ("invoice", self._invoice["id"]):
            self._found.append(transaction)

    def end(self) -> None:
        """It was posted once, when it was issued, by what it says; the lines agree with that by now."""
        owes = self._invoice["total"] - self._invoice["credit_applied"] or self._invoice["tax"]
        if len(self._found) != (1 if owes else 0):
            raise Wrong(f"the invoice stands in the journal {len(self._found)} times")
        for transaction in self._found:
            if whole(transaction, "posted_at_ms") != whole(self._invoice, "issued_at_ms"):
                raise Wrong("the journal posted the invoice at another moment than it says it was issued")
            self._compare(transaction)

    def _compare(self, transaction: dict[str, Any]) -> None:
        sums: dict[str, int] = {}
        for entry in transaction["entries"]:
            account = text(entry, "account")
            sums[account] = sums.get(account, 0) + entry["amount"]
        stated = {
            "wallet": self._invoice["total"] - self._invoice["credit_applied"],
            "receivable": -self._invoice["amount_due"],
            "revenue": -self._invoice["tax_included"],
            "tax": self._invoice["tax"],
            "rounding": self._invoice["rounding"],
        }
        for account in sorted(stated.keys() | sums.keys()):
            posted, amount = sums.get(account, 0), stated.get(account, 0)
            if posted != amount:
                raise Wrong(
                    f"the journal posted {dollars(posted)} to {account} for this invoice, which says {dollars(amount)}"
                )


# All of it


def verify(path: str, noted: dict[str, str]) -> None:
    bundle = Bundle(path)
    invoice, proof = bundle.document("invoice.json"), bundle.document("proof.json")
    for document in (invoice, proof):
        if whole(document, "format") != FORMAT:
            raise Unreadable(f"this program knows the format {FORMAT}; the file has another one")
    say(f"Invoice {text(invoice, 'number')} of {text(invoice, 'organization')} for {text(invoice, 'period')}")
    if text(proof, "organization") != invoice["organization"]:
        raise Wrong("the proof is another organization's than the invoice")
    seals = verify_chain(objects(proof, "seals"))
    if seals:
        say(f"ok  the chain of {len(seals)} seals from {min(seals)} to {max(seals)} is whole")
    verify_noted(noted, seals)
    compared = sorted(noted.keys() & seals.keys())
    if compared:
        say(f"ok  the seals that you wrote down are the same: {', '.join(compared)}")
    rates = rates_of(objects(bundle.document("prices.json"), "prices"))
    charges, issue = Charges(invoice, rates), Issue(invoice)
    sealed, unsealed = verify_days(bundle, objects(proof, "days"), seals, charges, issue)
    if sealed:
        say(f"ok  your charges and journal of {len(sealed)} days are those that were sealed, and post each other")
    verify_undone(bundle, [*sealed, *unsealed], charges)
    bundle.has_only({*MEMBERS, *(f"days/{day}.ndjson" for day in (*sealed, *unsealed))})
    say(f"ok  {charges.count} charges are their usage times the rates of {len(rates)} prices")
    verify_lines(invoice, charges, rates)
    say(f"ok  {len(invoice['lines'])} lines are the sums of these charges")
    verify_credit(invoice)
    verify_tax(invoice)
    verify_due(invoice)
    say(f"ok  credit, tax and rounding are right: due is {dollars(invoice['amount_due'])}")
    issue.end()
    say("ok  the journal posted the invoice once, as it stands")
    if unsealed:
        say(f"not yet sealed, so nothing but arithmetic proves them: {', '.join(unsealed)}")
    missing = sorted(noted.keys() - seals.keys())
    if missing:
        raise Unreadable(f"no seal of {', '.join(missing)} is in the file, so it was not compared")


def verify_days(
    bundle: Bundle, days: list[dict[str, Any]], seals: dict[str, dict[str, Any]], charges: Charges, issue: Issue
) -> tuple[list[str], list[str]]:
    """Return the days that are sealed, and those that are not yet."""
    sealed: list[str] = []
    unsealed: list[str] = []
    for stated in days:
        day = text(stated, "day")
        if day in (*sealed, *unsealed):
            raise Wrong(f"{day} stands twice in the proof")
        is_sealed = day in seals
        if is_sealed != field(stated, "sealed"):
            raise Wrong(f"{day} is said to be {'sealed' if stated['sealed'] else 'not yet sealed'}, against the seals")
        part = obj(stated["part"], "part") if is_sealed and field(stated, "part") is not None else None
        if is_sealed and part is not None:
            digest = bundle.sha256(f"days/{day}.ndjson")
            verify_part(day, charges.organization, part, digest, seals[day])
        found = read_day(bundle, day, charges, issue)
        if is_sealed:
            counted = (0, 0) if part is None else (part["charges"], part["transactions"])
            if counted != (found.charges, found.transactions):
                raise Wrong(f"{day} has another number of charges or transactions than was sealed")
        (sealed if is_sealed else unsealed).append(day)
    last = max(seals, default="")
    early = [day for day in unsealed if day < last]
    if early:
        raise Wrong(f"{early[0]} is not sealed, and a later day is")
    return sealed, unsealed


def read_day(bundle: Bundle, day: str, charges: Charges, issue: Issue) -> Day:
    found = Day(day, charges.organization)
    for number, record in enumerate(bundle.records(f"days/{day}.ndjson")):
        kind = text(record, "record")
        if number == 0:
            found.header(record)
        elif kind == "charge":
            found.charge(record)
            charges.take(record)
        elif kind == "transaction":
            found.transaction(record)
            issue.take(record)
        else:
            raise Unreadable(f"days/{day}.ndjson has a record that is neither a charge nor a transaction")
    found.end()
    return found


def verify_undone(bundle: Bundle, days: list[str], charges: Charges) -> None:
    for name in [*(f"days/{day}.ndjson" for day in days), "undone.ndjson"]:
        for record in bundle.records(name):
            if record.get("record") == "charge" and charges.wanted(record):
                charges.undone(record)
    charges.all_undone()


def noted_seal(stated: str) -> tuple[str, str]:
    day, _, value = stated.partition("=")
    try:
        found = bytes.fromhex(value)
        if len(found) != 32:
            raise ValueError
        return date.fromisoformat(day).isoformat(), found.hex()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{stated!r} is not like 2026-05-31=HASH") from None


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify the proof of an invoice.")
    parser.add_argument("proof", help="the zip file")
    parser.add_argument(
        "--seal",
        action="append",
        default=[],
        type=noted_seal,
        metavar="DAY=HASH",
        help="a seal that you wrote down earlier; may be given again",
    )
    asked = parser.parse_args()
    noted = dict(asked.seal)
    if len(noted) != len(set(asked.seal)):
        parser.error("two seals of one day were given")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console may lack the letters of a name
    try:
        verify(asked.proof, noted)
    except Wrong as error:
        say(f"WRONG: {error}.")
        return 1
    except Unreadable as error:
        say(f"COULD NOT BE VERIFIED: {error}.")
        return 2
    except Exception as error:  # whatever else a made-up file brings about is no proof either
        say(f"COULD NOT BE VERIFIED: {type(error).__name__}: {error}.")
        return 2
    say("All of it is right.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
