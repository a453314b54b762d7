"""An account at Stripe as far as Tokenyard knows it: what each call does to it, by the rules of Stripe's own API."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
DECLINES = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline", "Your card was declined."),
    "pm_card_chargeDeclinedInsufficientFunds": (
        *("card_declined", "insufficient_funds", "Your card has insufficient funds."),
    ),
    "pm_card_authenticationRequired": (
        *("authentication_required", "authentication_required", "The payment requires authentication."),
    ),
}
"""Stripe's test cards that are refused when they are charged: code, decline code, message."""
GOOD, SLOW = "pm_card_visa", "pm_usBankAccount"
"""One that is charged at once, and one that takes days: `finish` says how that ends."""
UNVERIFIED = "pm_usBankAccount_microdeposits"
"""One whose owner has to confirm small deposits first, days later: `verify`."""
LEAST_CENTS = 50


class StripeRefusal(Exception):
    """What Stripe answers with an error."""

    def __init__(self, status: int, kind: str, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "code": code, "message": message, **more}}


def invalid(code: str, message: str, status: int = 400, **more: str) -> StripeRefusal:
    return StripeRefusal(status, "invalid_request_error", code, message, **more)


@dataclass
class StripeAccount:
    customers: dict[str, Object] = field(default_factory=dict)
    methods: dict[str, Object] = field(default_factory=dict)
    intents: dict[str, Object] = field(default_factory=dict)
    sessions: dict[str, Object] = field(default_factory=dict)
    events: list[Object] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    """Cents by PaymentIntent: the money that really moved."""
    refunded: dict[str, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # What the API does.

    def create_customer(self, params: Mapping[str, str]) -> Object:
        return self._made(self.customers, "cus", "customer", metadata=_nested(params, "metadata"))

    def list_methods(self, customer: str) -> Object:
        self._customer(customer)
        own = [one for one in reversed(self.methods.values()) if one["customer"] == customer]
        return {"object": "list", "data": own, "has_more": False, "url": f"/v1/customers/{customer}/payment_methods"}

    def detach_method(self, method: str) -> Object:
        found = self.methods.get(method)
        if found is None or found["customer"] is None:
            raise invalid("resource_missing", f"No such PaymentMethod: '{method}'", 404)
        found["customer"] = None
        return found

    def create_intent(self, params: Mapping[str, str]) -> Object:
        amount = int(params["amount"])
        if amount < LEAST_CENTS:
            raise invalid("amount_too_small", "Amount must be at least $0.50 usd")
        customer, method = params["customer"], params["payment_method"]
        self._customer(customer)
        if self.methods.get(method, {}).get("customer") != customer:
            raise invalid("resource_missing", f"No such PaymentMethod: '{method}'")
        return self._made(
            self.intents,
            "pi",
            "payment_intent",
            amount=amount,
            amount_received=0,
            currency=params["currency"],
            customer=customer,
            payment_method=method,
            status="requires_confirmation",
            last_payment_error=None,
            redirects=params.get("automatic_payment_methods[allow_redirects]", "always"),
            metadata=_nested(params, "metadata"),
        )

    def intent(self, identity: str) -> Object:
        if identity not in self.intents:
            raise invalid("resource_missing", f"No such payment_intent: '{identity}'", 404)
        return self.intents[identity]

    def confirm_intent(self, identity: str, params: Mapping[str, str]) -> Object:
        intent = self.intent(identity)
        if intent["status"] != "requires_confirmation":
            raise _unexpected(intent, "confirm")
        if intent["redirects"] != "never" and "return_url" not in params:
            raise invalid("", "You must provide a `return_url` when confirming.")
        self._customer(intent["customer"])
        method = self.methods[intent["payment_method"]]
        if method["customer"] != intent["customer"]:
            raise invalid("payment_method_unexpected_state", "The PaymentMethod was detached from its customer.")
        card = method["test_card"]
        if card in DECLINES:
            self._decline(intent, *DECLINES[card])
            error = dict(intent["last_payment_error"])
            kind, code, message = (error.pop(name) for name in ("type", "code", "message"))
            raise StripeRefusal(402, kind, code, message, **error, payment_intent=intent)
        if card == UNVERIFIED:
            intent["status"] = "requires_action"
            self._tell("payment_intent.requires_action", intent)
            return intent
        if card == SLOW:
            intent["status"] = "processing"
            self._tell("payment_intent.processing", intent)
            return intent
        self._take(intent)
        return intent

    def cancel_intent(self, identity: str) -> Object:
        intent = self.intent(identity)
        if intent["status"] in {"succeeded", "processing", "canceled"}:
            raise _unexpected(intent, "cancel")
        if any(session["payment_intent"] == identity for session in self.sessions.values()):
            raise invalid("", "You cannot cancel the PaymentIntent of a Checkout Session. Expire the session instead.")
        intent["status"] = "canceled"
        self._tell("payment_intent.canceled", intent)
        return intent

    def create_session(self, params: Mapping[str, str]) -> Object:
        self._customer(params["customer"])
        mode = params["mode"]
        if mode == "setup" and "currency" not in params:
            raise invalid("parameter_missing", "You must specify a currency in setup mode.")
        made = self._made(
            self.sessions,
            "cs",
            "checkout.session",
            mode=mode,
            customer=params["customer"],
            amount=int(params["line_items[0][price_data][unit_amount]"]) if mode == "payment" else 0,
            expires_at=int(params.get("expires_at", 0)),
            status="open",
            payment_intent=None,
            setup_intent=None,
            metadata=_nested(params, "metadata"),
        )
        made["url"] = f"https://checkout.stripe.com/c/pay/{made['id']}"
        return made

    def session(self, identity: str, params: Mapping[str, str]) -> Object:
        if identity not in self.sessions:
            raise invalid("resource_missing", f"No such checkout.session: '{identity}'", 404)
        found = dict(self.sessions[identity])
        if found["setup_intent"] is not None and params.get("expand[0]") != "setup_intent":
            found["setup_intent"] = found["setup_intent"]["id"]
        return found

    # What people do on Stripe's pages, and what banks do later.

    def new_method(self, customer: str, card: str = GOOD) -> str:
        kind = "us_bank_account" if card in {SLOW, UNVERIFIED} else "card"
        details = {"brand": "visa", "last4": "4242", "exp_month": 3, "exp_year": 2031}
        made = self._made(
            self.methods, "pm", "payment_method", type=kind, customer=customer, test_card=card, **{kind: details}
        )
        return str(made["id"])

    def complete_setup(self, session: str, card: str = GOOD) -> str:
        found = self.sessions[session]
        method = self.new_method(found["customer"], card)
        setup = {"id": f"seti_{next(self._numbers)}", "object": "setup_intent", "payment_method": method}
        found |= {"status": "complete", "setup_intent": setup}
        self._tell("checkout.session.completed", self.session(session, {}))
        return method

    def complete_payment(self, session: str, card: str = GOOD) -> None:
        found = self.sessions[session]
        params = {"amount": str(found["amount"]), "currency": "usd", "customer": found["customer"]}
        method = self.new_method(found["customer"], card)
        intent = self.create_intent({**params, "payment_method": method})
        found |= {"status": "complete", "payment_intent": intent["id"]}
        self.confirm_intent(intent["id"], {"return_url": "https://checkout.stripe.com"})
        self._tell("checkout.session.completed", found)

    def expire(self, session: str) -> None:
        self.sessions[session]["status"] = "expired"
        self._tell("checkout.session.expired", self.sessions[session])

    def verify(self, intent: str) -> None:
        """Let the owner of a bank account confirm the small deposits: the payment goes on."""
        found = self.intents[intent]
        assert found["status"] == "requires_action"
        found["status"] = "processing"
        self._tell("payment_intent.processing", found)

    def finish(self, intent: str, *, well: bool = True) -> None:
        """Let a slow payment come to its end."""
        found = self.intents[intent]
        assert found["status"] == "processing"
        if well:
            self._take(found)
        else:
            self._decline(found, "card_declined", "insufficient_funds", "The bank returned the debit.")

    def dispute(self, intent: str) -> None:
        self._tell("charge.dispute.created", {"id": "du_1", "object": "dispute", "payment_intent": intent})

    def refund(self, intent: str, cents: int) -> None:
        """Give so much of it back, in Stripe's dashboard."""
        self.refunded[intent] = self.refunded.get(intent, 0) + cents
        charge = {"id": f"ch_{intent}", "object": "charge", "payment_intent": intent}
        self._tell("charge.refunded", {**charge, "amount_refunded": self.refunded[intent]})

    def _take(self, intent: Object) -> None:
        assert intent["id"] not in self.taken
        self.taken[intent["id"]] = intent["amount"]
        intent |= {"status": "succeeded", "amount_received": intent["amount"]}
        self._tell("payment_intent.succeeded", intent)

    def _decline(self, intent: Object, code: str, decline_code: str, message: str) -> None:
        error = {"type": "card_error", "code": code, "decline_code": decline_code, "message": message}
        intent |= {"status": "requires_payment_method", "payment_method": None, "last_payment_error": error}
        self._tell("payment_intent.payment_failed", intent)

    def _customer(self, customer: str) -> None:
        if customer not in self.customers:
            raise invalid("resource_missing", f"No such customer: '{customer}'", param="customer")

    def _made(self, table: dict[str, Object], prefix: str, kind: str, **fields: Any) -> Object:
        identity = f"{prefix}_{next(self._numbers)}"
        table[identity] = {"id": identity, "object": kind, **fields}
        return table[identity]

    def _tell(self, kind: str, told: Object) -> None:
        number = next(self._numbers)
        self.events.append({"id": f"evt_{number}", "object": "event", "type": kind, "data": {"object": dict(told)}})


def _unexpected(intent: Object, verb: str) -> StripeRefusal:
    message = f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}."
    return invalid("payment_intent_unexpected_state", message)


def _nested(params: Mapping[str, str], name: str) -> dict[str, str]:
    return {key[len(name) + 1 : -1]: value for key, value in params.items() if key.startswith(f"{name}[")}


Call = Callable[[Mapping[str, str]], Object]
