"""Proofs of invoices as files, what is done to them, and the program that verifies them."""

import asyncio
import importlib.util
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.billing.api import TENANT, billing_api
from support.billing.invoice_books import CHEAP, DEAR
from support.billing.seal_books import SealBooks
from support.fakes.rate_cards import SHIPPED_CARDS
from support.source_tree import ROOT
from tokenyard_billing.pricing.prices import PriceList

VERIFIER = ROOT / "billing/verifier/verify_invoice.py"
Members = dict[str, bytes]


async def proof_of(books: SealBooks, invoice: str, path: Path, key: str = TENANT) -> Path:
    """Write the proof that the API gives to a file."""
    prices = PriceList((*SHIPPED_CARDS, CHEAP, DEAR))
    async with billing_api(books.database, books.redis, prices, clock=books.clock) as api:
        status, kind, content = await api.content(f"/v1/organization/invoices/{invoice}/proof", key)
    assert (status, kind) == (200, "application/zip"), content
    await asyncio.to_thread(path.write_bytes, content)
    return path


async def verify(path: Path, *more: str) -> tuple[int, str]:
    """Run the program as a customer does, with nothing but Python itself; return its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(VERIFIER), str(path), *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, said.decode()


def verifier() -> Any:
    """Return the program as a module, fresh, for what asks it too often to start it."""
    spec = importlib.util.spec_from_file_location("verify_invoice", VERIFIER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_members(path: Path, content: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, part in content.items():
            file.writestr(name, part)
    return path


def change_json(content: Members, name: str, change: Callable[[Any], None]) -> None:
    value = json.loads(content[name])
    change(value)
    content[name] = json.dumps(value).encode()


def change_lines(content: Members, name: str, change: Callable[[list[Any]], None]) -> None:
    lines = [json.loads(line) for line in content[name].splitlines()]
    change(lines)
    content[name] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
