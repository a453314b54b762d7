"""Payments as the API shows them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel

from tokenyard.web.pages import Identified
from tokenyard_billing.payments.methods import ListedMethod
from tokenyard_billing.payments.ports import CheckoutPage
from tokenyard_billing.views import Dollars, View, of

PaymentState = Literal["created", "processing", "succeeded", "failed", "cancelled"]


class PaymentView(View, Identified):
    """Money that the provider is to take, of an invoice or for credit (`invoice` is null), in nano-dollars.

    Of what succeeded, `settled` was paid for the invoice, and `credited` is credit. `checkout_url` is where it is to be
    paid, where no stored method is charged. `charge` is the provider's own id of it.
    """

    object: Literal["payment"] = "payment"
    currency: Literal["usd"] = "usd"
    organization: str
    invoice: str | None
    amount: int
    amount_dollars: Annotated[Dollars, of("amount")]
    settled: int
    credited: int
    provider: str
    charge: str | None
    checkout_url: str | None
    state: PaymentState
    failure_code: str
    failure_message: str
    created_at_ms: int
    finished_at_ms: int | None


class PaymentMethodView(Identified):
    """A stored way to pay; the `default` one is charged. `expires` is YYYY-MM, or empty."""

    object: Literal["payment_method"] = "payment_method"
    kind: str
    brand: str
    last4: str
    expires: str
    default: bool

    @classmethod
    def of_listed(cls, listed: ListedMethod) -> Self:
        one = listed.method
        return cls(
            id=one.id,
            kind=one.kind,
            brand=one.brand,
            last4=one.last4,
            expires=one.expires,
            default=listed.default,
        )


class PaymentSetupView(BaseModel):
    """A page of the provider's on which a method can be set up."""

    id: str
    object: Literal["payment_method.setup"] = "payment_method.setup"
    url: str

    @classmethod
    def of_page(cls, page: CheckoutPage) -> Self:
        return cls(id=page.id, url=page.url)


class RemovedMethodView(BaseModel):
    id: str
    object: Literal["payment_method.deleted"] = "payment_method.deleted"
    deleted: Literal[True] = True


class TakenEventView(BaseModel):
    received: Literal[True] = True
