"""The pages: what each shows, gathered for its template."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from tokenyard.core.clock import Clock
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import OrganizationId
from tokenyard_billing.periods import DAY_MS, HOUR_MS
from tokenyard_dashboard.chart import Chart, stacked
from tokenyard_dashboard.ports import Jobs, OrganizationNames
from tokenyard_dashboard.queries import Invoices, Usages
from tokenyard_dashboard.session import Sessions

RECENT = 200


@dataclass(frozen=True)
class Span:
    """A time range of the charts."""

    name: str
    title: str
    slot_ms: int
    slots: int
    label: str  # strftime


SPANS = {
    span.name: span
    for span in (
        Span("day", "24 hours", HOUR_MS, 24, "%H:00"),
        Span("month", "30 days", DAY_MS, 30, "%b %d"),
        Span("quarter", "90 days", DAY_MS, 90, "%b %d"),
    )
}


@dataclass(frozen=True)
class Sources:
    """Where the pages take what they show."""

    usages: Usages
    invoices: Invoices
    names: OrganizationNames
    jobs: Jobs
    clock: Clock


def router(sources: Sources, sessions: Sessions, templates: Jinja2Templates) -> APIRouter:
    """Return the pages behind the login."""
    pages = APIRouter(dependencies=[Depends(sessions.require)], default_response_class=HTMLResponse)

    async def names() -> dict[str, str]:
        return {str(key): name for key, (name, _slug) in (await sources.names.names()).items()}

    def page(request: Request, template: str, context: dict[str, Any]) -> HTMLResponse:
        return templates.TemplateResponse(request, template, {"spans": SPANS.values(), **context})

    @pages.get("/")
    async def overview(request: Request, span: str = "month") -> HTMLResponse:
        chosen = SPANS.get(span, SPANS["month"])
        since_ms = _first_slot(sources.clock, chosen) * chosen.slot_ms
        named = await names()
        organizations = await sources.usages.by_organization(since_ms)
        return page(
            request,
            "overview.html",
            {
                "span": chosen,
                "names": named,
                "chart": await _spend_chart(sources, chosen, "organization", named),
                "organizations": organizations,
                "idle": [key for key in named if key not in {usage.name for usage in organizations}],
                "models": await sources.usages.by_model(since_ms),
                "wallets": await sources.invoices.wallets(),
                "alarms": await sources.invoices.alarms(20),
            },
        )

    @pages.get("/organizations/{organization}")
    async def one_organization(request: Request, organization: str, span: str = "month") -> HTMLResponse:
        chosen = SPANS.get(span, SPANS["month"])
        named = await names()
        if organization not in named:
            raise NotFound(f"No such organization: `{organization}`.")
        key = OrganizationId(organization)
        since_ms = _first_slot(sources.clock, chosen) * chosen.slot_ms
        return page(
            request,
            "organization.html",
            {
                "span": chosen,
                "organization": key,
                "name": named[organization],
                "chart": await _spend_chart(sources, chosen, "model", {}, key),
                "models": await sources.usages.by_model(since_ms, key),
                "wallet": (await sources.invoices.wallets()).get(key, 0),
                "invoices": await sources.invoices.heads(key, 24),
                "jobs": await sources.jobs.recent(key, 20),
                "names": named,
            },
        )

    @pages.get("/jobs")
    async def all_jobs(request: Request) -> HTMLResponse:
        context = {"jobs": await sources.jobs.recent(None, RECENT), "names": await names()}
        return page(request, "jobs.html", context)

    @pages.get("/invoices")
    async def all_invoices(request: Request) -> HTMLResponse:
        context = {"invoices": await sources.invoices.heads(None, RECENT), "names": await names()}
        return page(request, "invoices.html", context)

    @pages.get("/invoices/{invoice}")
    async def one_invoice(request: Request, invoice: str) -> HTMLResponse:
        found = await sources.invoices.one(invoice)
        if found is None:
            raise NotFound(f"No such invoice: `{invoice}`.")
        head, lines = found
        return page(request, "invoice.html", {"invoice": head, "lines": lines, "names": await names()})

    return pages


def _first_slot(clock: Clock, span: Span) -> int:
    return clock.now_ms() // span.slot_ms - span.slots + 1


async def _spend_chart(
    sources: Sources, span: Span, group: str, named: dict[str, str], organization: OrganizationId | None = None
) -> Chart:
    first = _first_slot(sources.clock, span)
    spends = await sources.usages.over_time(first * span.slot_ms, span.slot_ms, group, organization)
    values: dict[tuple[int, str], int] = {}
    for spend in spends:
        at = spend.slot - first, named.get(spend.name, spend.name)
        values[at] = values.get(at, 0) + spend.amount
    labels = [
        datetime.fromtimestamp((first + slot) * span.slot_ms / 1000, UTC).strftime(span.label)
        for slot in range(span.slots)
    ]
    return stacked(labels, values)
