"""How billing's things look in JSON. Money is whole nano-dollars, and dollars as exact text beside it."""

from typing import Any

import msgspec

from tokenyard.core.money import to_dollars
from tokenyard_billing.invoicing.invoices import InvoiceView
from tokenyard_billing.proof.reconcile import Reconciliation
from tokenyard_billing.usage.store import UsageSum
from tokenyard_billing.wallets.wallet import Grant

_USAGE = ("model", "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens", "amount")


def shown_invoice(invoice: InvoiceView) -> dict[str, Any]:
    """Return an invoice with its lines."""
    shown: dict[str, Any] = {"object": "invoice", "currency": "usd", **msgspec.to_builtins(invoice)}
    for line in shown["lines"]:
        line["rate_dollars_per_million"] = to_dollars(line["rate"] * 1_000_000)
        line["amount_dollars"] = to_dollars(line["amount"])
    for name in ("total", "credit_applied", "amount_due"):
        shown[f"{name}_dollars"] = to_dollars(shown[name])
    return shown


def shown_grant(grant: Grant) -> dict[str, Any]:
    """Return a credit grant."""
    shown = {"object": "credit_grant", "id": grant.transaction, **msgspec.to_builtins(grant)}
    return shown | {"amount_dollars": to_dollars(grant.amount)}


def shown_balance(wallet: int, reserved: int) -> dict[str, Any]:
    """Return what an organization has left."""
    return {
        "object": "balance",
        "currency": "usd",
        "available": wallet,
        "available_dollars": to_dollars(wallet),
        "reserved": reserved,
        "reserved_dollars": to_dollars(reserved),
    }


def shown_usage(usage: UsageSum) -> dict[str, Any]:
    """Return one model's usage."""
    shown = {name: getattr(usage, name) for name in _USAGE}
    return {"object": "usage", **shown, "amount_dollars": to_dollars(usage.amount)}


def shown_reconciliation(found: Reconciliation) -> dict[str, Any]:
    """Return the outcome of all checks."""
    return {
        "object": "reconciliation",
        "ok": found.ok,
        "differences": [msgspec.to_builtins(difference) for difference in found.differences],
        "tokens": {**msgspec.to_builtins(found.tokens), "unexplained": found.tokens.unexplained},
    }
