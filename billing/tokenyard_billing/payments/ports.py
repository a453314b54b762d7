"""What payments need of a provider. Every call is bounded in time, and may be repeated: it takes money once at most."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars


class ProviderUnavailable(Exception):
    """The provider did not answer, or not as it should: what it did is not known. Ask again later."""


class ProviderRefused(Exception):
    """The provider will never do this; `code` and the message are its own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CustomerGone(ProviderRefused):
    """The provider does not know the customer any more: it was deleted there, or another account is used now."""


class WrongAmount(Exception):
    """A charge took another amount than it was to take: somebody must look at it, and nothing is posted."""


class ChargeState(StrEnum):
    """`unconfirmed` takes no money until it is confirmed; `processing` may take days. The last three are final.

    `waiting` is for what its payer must still do, such as to confirm small deposits: it may take money days later.
    """

    UNCONFIRMED = "unconfirmed"
    WAITING = "waiting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ChargeProgress(msgspec.Struct, frozen=True):
    """`code` and `message` are the provider's, where it failed or waits; `taken` is money, where it succeeded."""

    state: ChargeState
    code: str = ""
    message: str = ""
    taken: NanoDollars = NanoDollars(0)


class ChargeOrder(msgspec.Struct, frozen=True):
    """Money to be taken; `payment` is the id of our row, under which it is asked for once."""

    payment: str
    organization: OrganizationId
    invoice: str  # empty: for credit
    customer: str
    method: str
    amount: NanoDollars  # whole cents
    attempt: int = 0  # grows where it is not known what became of the one before


class CheckoutOrder(msgspec.Struct, frozen=True):
    """Money that somebody is to pay on the provider's own page, until `expires_at_ms`."""

    payment: str
    organization: OrganizationId
    customer: str
    amount: NanoDollars  # whole cents
    title: str
    expires_at_ms: int
    attempt: int = 0


class CheckoutPage(msgspec.Struct, frozen=True):
    id: str
    url: str


class CheckoutState(StrEnum):
    OPEN = "open"
    COMPLETED = "completed"
    EXPIRED = "expired"


class CheckoutProgress(msgspec.Struct, frozen=True):
    """A page that was completed has a charge, or a method where it only set one up."""

    state: CheckoutState
    charge: str | None = None
    method: str | None = None


class StoredMethod(msgspec.Struct, frozen=True):
    """A way to pay that the provider keeps; `last4` are the last digits of its number, where it has one."""

    id: str
    kind: str
    brand: str
    last4: str
    expires: str  # YYYY-MM, empty where it does not


class ProviderEvent(msgspec.Struct, frozen=True):
    """What a provider told of by itself. It only says where to look: what it says of states may be old.

    `alarm` says what an operator must look at, `subject` at what.
    """

    charge: str | None = None
    checkout: str | None = None
    alarm: str = ""
    subject: str = ""
    message: str = ""


class InvalidEvent(Exception):
    """It was not the provider who sent it, or too long ago."""


class PaymentProvider(Protocol):
    """Takes money for us. Each call raises `ProviderUnavailable`, and `ProviderRefused` where it says so."""

    name: str

    async def customer(self, organization: OrganizationId) -> str:
        """Return the provider's id of an organization, made with the first call."""
        ...

    async def begin(self, order: ChargeOrder) -> str:
        """Return the id of an unconfirmed charge, which takes no money yet; or raise `ProviderRefused`."""
        ...

    async def confirm(self, charge: str) -> ChargeProgress:
        """Take the money of an unconfirmed charge; one that was confirmed before is left as it is."""
        ...

    async def progress(self, charge: str) -> ChargeProgress: ...

    async def cancel(self, charge: str) -> ChargeProgress:
        """See to it that a charge never takes money; return how it stands, which may be that it did or still may."""
        ...

    async def checkout(self, order: CheckoutOrder) -> CheckoutPage:
        """Return a page on which the order can be paid, or raise `ProviderRefused`."""
        ...

    async def setup(self, organization: OrganizationId, customer: str) -> CheckoutPage:
        """Return a page on which a method can be set up, to be charged later."""
        ...

    async def checkout_progress(self, checkout: str) -> CheckoutProgress: ...

    async def methods(self, customer: str) -> Sequence[StoredMethod]:
        """Return the customer's methods, the newest first."""
        ...

    async def forget(self, method: str) -> None:
        """Let nobody charge a method any more."""
        ...

    def event(self, body: bytes, signature: str, now_ms: int) -> ProviderEvent:
        """Read what the provider sent, or raise `InvalidEvent`."""
        ...
