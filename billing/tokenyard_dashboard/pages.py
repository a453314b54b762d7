"""The pages: what each shows, gathered from the API for its template."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.clients.platform_api.shapes import UsageBucketInfo, UsageResultInfo
from tokenyard_dashboard.chart import OTHER, SERIES, Chart, stacked
from tokenyard_dashboard.session import SessionCookie

RECENT = 200
_HOUR_S, _DAY_S = 3600, 86_400
_WIDTHS = {_HOUR_S: "1h", _DAY_S: "1d"}


@dataclass(frozen=True)
class Span:
    """A time range of the charts, up to now: `slots` bars of `slot_s` seconds, labelled by a strftime format."""

    name: str
    title: str
    slot_s: int
    slots: int
    label: str

    @property
    def width(self) -> str:
        return _WIDTHS[self.slot_s]

    def start(self) -> int:
        """Return the unix time at which the first bar begins."""
        return (int(time.time()) // self.slot_s - self.slots + 1) * self.slot_s

    def labels(self, start: int) -> list[str]:
        times = range(start, start + self.slots * self.slot_s, self.slot_s)
        return [datetime.fromtimestamp(seconds, UTC).strftime(self.label) for seconds in times]


SPANS = {
    span.name: span
    for span in (
        Span("day", "24 hours", _HOUR_S, 24, "%H:00"),
        Span("month", "30 days", _DAY_S, 30, "%b %d"),
        Span("quarter", "90 days", _DAY_S, 90, "%b %d"),
    )
}


def router(connection: ApiConnection, cookie: SessionCookie, templates: Jinja2Templates) -> APIRouter:
    pages = APIRouter(default_response_class=HTMLResponse)

    def session_api(request: Request) -> OperatorApi:
        return OperatorApi(connection, cookie.read(request).key)

    def chosen_span(span: str = "month") -> Span:
        return SPANS.get(span, SPANS["month"])

    Api = Annotated[OperatorApi, Depends(session_api)]
    ChosenSpan = Annotated[Span, Depends(chosen_span)]

    def page(request: Request, template: str, **context: object) -> HTMLResponse:
        return templates.TemplateResponse(request, template, {"spans": SPANS.values(), **context})

    @pages.get("/")
    async def overview(request: Request, api: Api, span: ChosenSpan) -> HTMLResponse:
        start = span.start()
        names, wallets, used, by_model, alarms = await asyncio.gather(
            _names(api),
            _wallets(api),
            api.usage(start, group_by="organization"),
            api.usage(start, group_by="model"),
            api.alarms(20),
        )
        organizations = _largest_first(used)
        return page(
            request,
            "overview.html",
            span=span,
            names=names,
            wallets=wallets,
            alarms=alarms,
            organizations=organizations,
            idle=sorted(names.keys() - {usage.organization for usage in organizations}, key=names.__getitem__),
            models=_largest_first(by_model),
            chart=await _chart_by_organization(api, span, start, organizations, names),
        )

    @pages.get("/organizations/{organization}")
    async def one_organization(request: Request, api: Api, span: ChosenSpan, organization: str) -> HTMLResponse:
        start = span.start()
        owner = await api.organization(organization)
        used, buckets, balance, invoices, jobs = await asyncio.gather(
            api.usage(start, group_by="model", organization=owner.id),
            api.usage(start, group_by="model", organization=owner.id, bucket_width=span.width),
            api.balance(owner.id),
            api.invoices(organization=owner.id, limit=24),
            api.jobs(organization=owner.id, limit=20),
        )
        values: dict[tuple[int, str], int] = {}
        for slot, result in _in_slots(buckets, span, start):
            values[slot, result.model or OTHER] = result.amount
        return page(
            request,
            "organization.html",
            span=span,
            organization=owner,
            names={owner.id: owner.name},
            chart=stacked(span.labels(start), values),
            models=_largest_first(used),
            balance=balance,
            invoices=invoices,
            jobs=jobs,
        )

    @pages.get("/jobs")
    async def all_jobs(request: Request, api: Api) -> HTMLResponse:
        names, jobs = await asyncio.gather(_names(api), api.jobs(limit=RECENT))
        return page(request, "jobs.html", jobs=jobs, names=names)

    @pages.get("/invoices")
    async def all_invoices(request: Request, api: Api) -> HTMLResponse:
        names, invoices = await asyncio.gather(_names(api), api.invoices(limit=RECENT))
        return page(request, "invoices.html", invoices=invoices, names=names)

    @pages.get("/invoices/{invoice}")
    async def one_invoice(request: Request, api: Api, invoice: str) -> HTMLResponse:
        found = await api.invoice(invoice)
        return page(request, "invoice.html", invoice=found, organization=await api.organization(found.organization))

    return pages


async def _names(api: OperatorApi) -> dict[str, str]:
    return {organization.id: organization.name async for organization in api.organizations()}


async def _wallets(api: OperatorApi) -> dict[str, int]:
    return {balance.id: balance.available async for balance in api.balances()}


def _largest_first(buckets: Sequence[UsageBucketInfo]) -> list[UsageResultInfo]:
    """Return the results of a usage that was asked for in one bucket."""
    results = [result for bucket in buckets for result in bucket.results]
    return sorted(results, key=lambda usage: (-usage.amount, usage.organization or "", usage.model or ""))


def _in_slots(buckets: Sequence[UsageBucketInfo], span: Span, start: int) -> list[tuple[int, UsageResultInfo]]:
    return [((bucket.start_time - start) // span.slot_s, result) for bucket in buckets for result in bucket.results]


async def _chart_by_organization(
    api: OperatorApi, span: Span, start: int, organizations: Sequence[UsageResultInfo], names: Mapping[str, str]
) -> Chart:
    """Ask only for those that get a colour of their own: a thousand organizations would be as many numbers a bar."""
    coloured = organizations if len(organizations) <= SERIES else organizations[: SERIES - 1]
    total, *series = await asyncio.gather(
        api.usage(start, bucket_width=span.width),
        *(api.usage(start, bucket_width=span.width, organization=usage.organization) for usage in coloured),
    )
    rest = {slot: result.amount for slot, result in _in_slots(total, span, start)}
    values: dict[tuple[int, str], int] = {}
    for usage, buckets in zip(coloured, series, strict=True):
        name = names.get(usage.organization or "", usage.organization or OTHER)
        for slot, result in _in_slots(buckets, span, start):
            values[slot, name] = values.get((slot, name), 0) + result.amount
            rest[slot] = rest.get(slot, 0) - result.amount
    if len(coloured) < len(organizations):
        values |= {(slot, OTHER): amount for slot, amount in rest.items() if amount > 0}
    return stacked(span.labels(start), values)
