"""Rate cards for operators."""

from fastapi import APIRouter

from tokenyard.core.errors import Conflict, InvalidRequest
from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page
from tokenyard_billing.pricing.operator_store import RateCardOperatorStore
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, RateCardConflict
from tokenyard_billing.pricing.views import NewRateCard, RateCardHead, RateCardView
from tokenyard_billing.views import ListSize


def router(store: RateCardOperatorStore) -> APIRouter:
    routes = APIRouter(prefix="/admin/rate_cards", tags=["billing"])

    @routes.get("")
    async def cards(_operator: CurrentOperator, after: After = None, limit: ListSize = 100) -> Page[RateCardHead]:
        """List the published rate cards, the last to start first."""
        found = await store.cards(after=after, limit=limit + 1)
        return Page[RateCardHead].of([RateCardHead.model_validate(one) for one in found], limit)

    @routes.post("")
    async def publish(operator: CurrentOperator, body: NewRateCard) -> RateCardView:
        """Publish a card; the same card again changes nothing. It cannot be changed or withdrawn afterwards."""
        try:
            return RateCardView.model_validate(await store.publish(body.card(), actor=operator.key))
        except RateCardConflict as error:
            raise Conflict(str(error)) from error
        except InvalidRateCard as error:
            raise InvalidRequest(str(error)) from error

    @routes.get("/{version:path}")
    async def card(_operator: CurrentOperator, version: str) -> RateCardView:
        return RateCardView.model_validate(await store.card(version))

    return routes
