"""Corrections and credit notes for operators."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.core.ids import random_text
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard.web.request_guard import NO_NUL
from tokenyard_billing.corrections.operator_store import CorrectionOperatorStore, CreditNoteOperatorStore
from tokenyard_billing.corrections.selection import Scope
from tokenyard_billing.corrections.views import CorrectionView, CreditNoteView, PreviewView
from tokenyard_billing.ports import OrganizationLookup
from tokenyard_billing.views import MONTH_PATTERN, ListSize


class ScopeBody(BaseModel, extra="forbid"):
    """Which charges: those that meet all that is said; `card` is the rate card to rate them by, null reverses them."""

    request: str | None = Field(default=None, min_length=1, max_length=96, pattern=NO_NUL)
    period: str | None = Field(default=None, pattern=MONTH_PATTERN)
    since_ms: int | None = Field(default=None, ge=0, lt=2**53)
    until_ms: int | None = Field(default=None, ge=0, lt=2**53)
    model: str | None = Field(default=None, min_length=1, max_length=256, pattern=NO_NUL)
    project: str | None = Field(default=None, min_length=1, max_length=96, pattern=NO_NUL)
    key: str | None = Field(default=None, min_length=1, max_length=96, pattern=NO_NUL)
    card: str | None = Field(default=None, min_length=1, max_length=64, pattern=NO_NUL)

    def scope(self) -> Scope:
        return Scope(**self.model_dump(include=set(Scope.__struct_fields__)))


class CorrectionBody(ScopeBody):
    """`reason` stands in the journal and on credit notes: the organization reads it."""

    reason: str = Field(min_length=1, max_length=500, pattern=NO_NUL)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=128, pattern=NO_NUL)


def router(find: OrganizationLookup, corrections: CorrectionOperatorStore, notes: CreditNoteOperatorStore) -> APIRouter:
    """Return the routes; an organization is named by its id or slug."""
    routes = APIRouter(prefix="/admin", tags=["billing"])

    @routes.post("/organizations/{organization}/corrections/preview")
    async def preview(_operator: CurrentOperator, organization: str, body: ScopeBody) -> PreviewView:
        """Tell what a correction would change, and change nothing."""
        return PreviewView.of_preview(await corrections.preview(await find(organization), body.scope(), body.card))

    @routes.post("/organizations/{organization}/corrections")
    async def correct(operator: CurrentOperator, organization: str, body: CorrectionBody) -> CorrectionView:
        """Ask for a correction, which is applied within seconds; with an idempotency key, once however often sent."""
        found = await corrections.request(
            await find(organization),
            body.scope(),
            body.card,
            reason=body.reason,
            actor=operator.key,
            idempotency_key=body.idempotency_key or f"once_{random_text()}",
        )
        return CorrectionView.model_validate(found)

    @routes.get("/corrections")
    async def listing(
        _operator: CurrentOperator, organization: str | None = None, after: After = None, limit: ListSize = 100
    ) -> Page[CorrectionView]:
        """List corrections, the newest first."""
        owner = None if organization is None else await find(organization)
        found = await corrections.corrections(owner, after=after, limit=limit + 1)
        return Page[CorrectionView].of([CorrectionView.model_validate(one) for one in found], limit)

    @routes.get("/corrections/{correction}")
    async def one(_operator: CurrentOperator, correction: str) -> CorrectionView:
        return CorrectionView.model_validate(await corrections.correction(correction))

    @routes.get("/credit_notes")
    async def credit_notes(
        _operator: CurrentOperator,
        organization: str | None = None,
        invoice: str | None = None,
        after: After = None,
        limit: ListSize = 100,
    ) -> Page[CreditNoteView]:
        """List credit notes with their lines, the newest first."""
        owner = None if organization is None else await find(organization)
        found = await notes.credit_notes(organization=owner, invoice=invoice, after=after, limit=limit + 1)
        return Page[CreditNoteView].of([CreditNoteView.model_validate(note) for note in found], limit)

    @routes.get("/credit_notes/{credit_note}")
    async def credit_note(_operator: CurrentOperator, credit_note: str) -> CreditNoteView:
        return CreditNoteView.model_validate(await notes.credit_note(credit_note))

    return routes
