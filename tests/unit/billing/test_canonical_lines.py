"""The bytes that are sealed. Whoever changes them changes `FORMAT` too: days that are sealed keep theirs."""

from hashlib import sha256

from tokenyard.storage.bulk import sql_table
from tokenyard_billing.sealing.canonical import (
    CHARGE_FIELDS,
    ENTRY_FIELDS,
    TRANSACTION_FIELDS,
    charge_line,
    day_header,
    leaf_statement,
    seal_hash,
    transaction_line,
)
from tokenyard_billing.tables import Charge, Entry, Transaction


def test_every_column_is_sealed() -> None:
    assert set(CHARGE_FIELDS) == set(sql_table(Charge).columns.keys())
    assert set(TRANSACTION_FIELDS) == set(sql_table(Transaction).columns.keys())
    of_its_transaction = {"transaction", "organization"}
    assert set(ENTRY_FIELDS) == set(sql_table(Entry).columns.keys()) - of_its_transaction


def test_the_bytes_are_these() -> None:
    assert day_header("2026-03-03", "org_a") == (
        b'{"day":"2026-03-03","format":1,"organization":"org_a","record":"day"}\n'
    )
    values: list[object] = ["ü\n" if name == "end_user" else None for name in CHARGE_FIELDS]
    assert '"end_user":"ü\\n"'.encode() in charge_line(values)
    head = ("tx_1", "org_a", "grant", "g", "", "op", 5)
    assert transaction_line(head, [(0, "wallet", 7), (1, "granted", -7)]) == (
        b'{"actor":"op","entries":[{"account":"wallet","amount":7,"number":0},'
        b'{"account":"granted","amount":-7,"number":1}],"id":"tx_1","organization":"org_a","posted_at_ms":5,'
        b'"reason":"","record":"transaction","reference":"g","template":"grant"}\n'
    )
    assert leaf_statement("org_a", charges=1, transactions=2, digest="d") == (
        b'{"charges":1,"digest":"d","organization":"org_a","transactions":2}'
    )
    stated = b'{"day":"2026-03-03","format":1,"organizations":0,"previous":"","root":"r"}'
    assert seal_hash("2026-03-03", previous="", root="r", organizations=0) == sha256(stated).hexdigest()
