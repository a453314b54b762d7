"""What the file says of itself."""

_TEXT = """\
Proof of the invoice {invoice}

Verify it with billing/verifier/verify_invoice.py of Tokenyard's source: one file that needs nothing but Python 3.9.

    python3 verify_invoice.py THIS_FILE.zip --seal 2026-05-31=HASH

billing/verifier/FORMAT.md says every byte of what is here. Amounts are nano-dollars, times unix milliseconds.

invoice.json    The invoice as it was issued: lines, credit, tax and what is due.
prices.json     Every price that a charge of it names, with the checksum of its rate card.
days/*.ndjson   Your charges and journal transactions of each day on which a charge of it was recorded, and of the day
                of its issue. It bills the charges whose billed_in is its period and that stand on no credit note.
undone.ndjson   Charges of other days that a correction on this invoice undoes.
proof.json      How each day follows from its seal, and the chain of seals.

The seals of all days are listed by GET /v1/organization/seals. Write them down as they come, and give them to the
verifier: then nobody can change what was sealed, and its seal with it, without your noticing.
"""


def read_me(invoice: str) -> bytes:
    """Return what stands in it, and how to verify it."""
    return _TEXT.format(invoice=invoice).encode()
