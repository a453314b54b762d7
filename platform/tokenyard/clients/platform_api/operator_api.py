"""What an operator's key may ask. Every method raises `ApiFailed` where the API refuses or does not answer."""

from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import quote

from tokenyard.clients.platform_api.connection import Body
from tokenyard.clients.platform_api.correction_shapes import CorrectionInfo, CreditNoteInfo, PreviewInfo
from tokenyard.clients.platform_api.party_shapes import PartyInfo
from tokenyard.clients.platform_api.payment_shapes import (
    AutomaticTopUpInfo,
    DunningExceptionInfo,
    DunningInfo,
    PaymentInfo,
)
from tokenyard.clients.platform_api.proof_api import ProofApi
from tokenyard.clients.platform_api.proof_shapes import AlarmInfo, ReconciliationInfo, RequestInfo
from tokenyard.clients.platform_api.shapes import (
    ApiObject,
    BalanceInfo,
    EventInfo,
    GrantInfo,
    InvoiceInfo,
    JobInfo,
    KeyInfo,
    KeyRulesInfo,
    LimitsInfo,
    ModelFilesInfo,
    ModelInfo,
    NewKeyInfo,
    OrganizationInfo,
    PeriodInfo,
    PlanInfo,
    ProjectInfo,
    ProjectKeyInfo,
    RateCardInfo,
    TimeZoneInfo,
    TrialBalanceInfo,
    UsageBucketInfo,
    UsageInfo,
    UsagePage,
)
from tokenyard.clients.platform_api.tax_shapes import TaxProfileInfo, TaxRateInfo
from tokenyard.clients.platform_api.webhook_shapes import WebhookEndpointInfo, WebhookEventInfo, WebhookReplayInfo

_OPERATOR_KEYS = "/admin/operator_keys"
_JOBS = "/admin/jobs"
_PLANS = "/admin/plans"
_RATE_CARDS = "/admin/rate_cards"
_MODEL_FILES = "/admin/model_files"
_INVOICES = "/admin/invoices"
_ISSUER = "/admin/issuer"
_TAX_RATES = "/admin/tax_rates"
MAX_BUCKETS = 168  # of one page
RECONCILE_TIMEOUT_S = 3600.0  # it reads whole tables


class OperatorApi(ProofApi):
    """The `/admin` routes; `organization` is an id or a slug."""

    def organizations(self) -> AsyncIterator[OrganizationInfo]:
        return self.every(OrganizationInfo, "/admin/organizations")

    async def has_organizations(self) -> bool:
        return bool(await self.listing(OrganizationInfo, "/admin/organizations", limit=1))

    async def organization(self, organization: str) -> OrganizationInfo:
        return await self.call(OrganizationInfo, "GET", _of(organization))

    async def create_organization(
        self, *, name: str, slug: str, weight: int | None = None, plan: str | None = None
    ) -> OrganizationInfo:
        """Make an organization; without a weight it has its plan's."""
        body = {"name": name, "slug": slug, "weight": weight, "plan": plan}
        return await self.call(OrganizationInfo, "POST", "/admin/organizations", body=body)

    async def limit_organization(self, organization: str, changes: LimitsInfo) -> OrganizationInfo:
        return await self.call(OrganizationInfo, "PATCH", _of(organization), body={"limits": changes.as_json()})

    async def put_on_plan(self, organization: str, plan: str | None) -> OrganizationInfo:
        return await self.call(OrganizationInfo, "PATCH", _of(organization), body={"plan": plan})

    def plans(self) -> AsyncIterator[PlanInfo]:
        return self.every(PlanInfo, _PLANS)

    async def plan(self, plan: str) -> PlanInfo:
        return await self.call(PlanInfo, "GET", _plan(plan))

    async def create_plan(self, plan: PlanInfo) -> PlanInfo:
        return await self.call(PlanInfo, "POST", _PLANS, body=plan.as_json())

    async def change_plan(self, plan: str, changes: PlanInfo) -> PlanInfo:
        return await self.call(PlanInfo, "PATCH", _plan(plan), body=changes.as_json())

    async def delete_plan(self, plan: str) -> ApiObject:
        return await self.call(ApiObject, "DELETE", _plan(plan))

    def projects(self, organization: str) -> AsyncIterator[ProjectInfo]:
        return self.every(ProjectInfo, _of(organization, "projects"))

    async def create_project(self, organization: str, name: str) -> ProjectInfo:
        return await self.call(ProjectInfo, "POST", _of(organization, "projects"), body={"name": name})

    async def limit_project(self, organization: str, project: str, changes: LimitsInfo) -> ProjectInfo:
        path = _of(organization, "projects", project)
        return await self.call(ProjectInfo, "PATCH", path, body={"limits": changes.as_json()})

    def keys(self, organization: str) -> AsyncIterator[KeyInfo]:
        return self.every(KeyInfo, _of(organization, "api_keys"))

    async def key(self, organization: str, key: str) -> ProjectKeyInfo:
        return await self.call(ProjectKeyInfo, "GET", _of(organization, "api_keys", key))

    async def limit_key(self, organization: str, key: str, changes: LimitsInfo) -> ProjectKeyInfo:
        path = _of(organization, "api_keys", key)
        return await self.call(ProjectKeyInfo, "PATCH", path, body={"limits": changes.as_json()})

    async def create_key(
        self,
        organization: str,
        *,
        name: str,
        project: str | None = None,
        expires_in_s: int | None = None,
        rules: KeyRulesInfo | None = None,
    ) -> NewKeyInfo:
        """Make a tenant's key, in its default project where none is named."""
        stated = {} if rules is None else rules.as_json()
        body = {"name": name, "project": project, "expires_in_seconds": expires_in_s, **stated}
        return await self.call(NewKeyInfo, "POST", _of(organization, "api_keys"), body=body)

    async def revoke_key(self, organization: str, key: str) -> ApiObject:
        return await self.call(ApiObject, "DELETE", _of(organization, "api_keys", key))

    async def operator_keys(self) -> list[KeyInfo]:
        return await self.listing(KeyInfo, _OPERATOR_KEYS)

    async def create_operator_key(self, *, name: str, expires_in_s: int | None = None) -> NewKeyInfo:
        body = {"name": name, "expires_in_seconds": expires_in_s}
        return await self.call(NewKeyInfo, "POST", _OPERATOR_KEYS, body=body)

    async def revoke_operator_key(self, key: str) -> ApiObject:
        return await self.call(ApiObject, "DELETE", f"{_OPERATOR_KEYS}/{quote(key, safe='')}")

    def models(self) -> AsyncIterator[ModelInfo]:
        return self.every(ModelInfo, "/admin/models")

    async def check_model_files(self, files: Sequence[str]) -> ModelFilesInfo:
        """Ask whether they could be put in force; nothing changes."""
        return await self.call(ModelFilesInfo, "POST", f"{_MODEL_FILES}/check", body={"files": list(files)})

    async def publish_model_files(self, files: Sequence[str]) -> ModelFilesInfo:
        """Put the YAML of all models that are to be served in force, in every process."""
        return await self.call(ModelFilesInfo, "POST", _MODEL_FILES, body={"files": list(files)})

    def rate_cards(self) -> AsyncIterator[RateCardInfo]:
        """Yield the published rate cards, the last to start first."""
        return self.every(RateCardInfo, _RATE_CARDS)

    async def publish_rate_card(self, card: Body) -> RateCardInfo:
        """Publish a card in the shape of its YAML file."""
        return await self.call(RateCardInfo, "POST", _RATE_CARDS, body=card)

    async def jobs(
        self, *, organization: str | None = None, status: str | None = None, limit: int = 100
    ) -> list[JobInfo]:
        """Return the newest jobs; `organization` is an id here."""
        return await self.listing(JobInfo, _JOBS, organization=organization, status=status, limit=limit)

    async def job(self, job: str) -> JobInfo:
        return await self.call(JobInfo, "GET", f"{_JOBS}/{quote(job, safe='')}")

    async def cancel_job(self, job: str) -> JobInfo:
        return await self.call(JobInfo, "POST", f"{_JOBS}/{quote(job, safe='')}/cancel")

    async def pause_job(self, job: str) -> JobInfo:
        return await self.call(JobInfo, "POST", f"{_JOBS}/{quote(job, safe='')}/pause")

    async def resume_job(self, job: str) -> JobInfo:
        return await self.call(JobInfo, "POST", f"{_JOBS}/{quote(job, safe='')}/resume")

    def job_events(self, job: str) -> AsyncIterator[EventInfo]:
        """Yield a job's events, newest first."""
        return self.every(EventInfo, f"{_JOBS}/{quote(job, safe='')}/events")

    async def usage(
        self,
        start_time: int,
        *,
        bucket_width: str | None = None,
        group_by: str | None = None,
        organization: str | None = None,
    ) -> list[UsageBucketInfo]:
        """Return usage from a unix time until now, in buckets of `1h` or `1d`, or in one.

        `group_by` is `organization` or `model`.
        """
        buckets: list[UsageBucketInfo] = []
        page: str | None = None
        while True:
            query = {
                "start_time": start_time,
                "bucket_width": bucket_width,
                "group_by": group_by,
                "organization": organization,
                "page": page,
                "limit": MAX_BUCKETS,
            }
            found = await self.call(UsagePage, "GET", "/admin/usage", query=query)
            buckets += found.data
            page = found.next_page
            if page is None:
                return buckets

    def balances(self) -> AsyncIterator[BalanceInfo]:
        """Yield the balance of each organization that ever had credit or usage."""
        return self.every(BalanceInfo, "/admin/balances", limit=1000)

    async def balance(self, organization: str) -> BalanceInfo:
        return await self.call(BalanceInfo, "GET", _of(organization, "balance"))

    async def invoices(
        self, *, organization: str | None = None, state: str | None = None, limit: int = 100
    ) -> list[InvoiceInfo]:
        """Return the newest invoices without their lines."""
        return await self.listing(InvoiceInfo, _INVOICES, organization=organization, state=state, limit=limit)

    async def invoice(self, invoice: str) -> InvoiceInfo:
        return await self.call(InvoiceInfo, "GET", f"{_INVOICES}/{quote(invoice, safe='')}")

    async def pay_invoice(self, invoice: str, *, reference: str, idempotency_key: str) -> InvoiceInfo:
        """Note that all that is due was paid."""
        body = {"reference": reference, "idempotency_key": idempotency_key}
        return await self.call(InvoiceInfo, "POST", f"{_INVOICES}/{quote(invoice, safe='')}/pay", body=body)

    async def void_invoice(self, invoice: str, *, reason: str) -> InvoiceInfo:
        path = f"{_INVOICES}/{quote(invoice, safe='')}/void"
        return await self.call(InvoiceInfo, "POST", path, body={"reason": reason})

    async def write_off_invoice(self, invoice: str, *, reason: str) -> InvoiceInfo:
        path = f"{_INVOICES}/{quote(invoice, safe='')}/write_off"
        return await self.call(InvoiceInfo, "POST", path, body={"reason": reason})

    async def invoice_pdf(self, invoice: str) -> bytes:
        return await self.content(f"{_INVOICES}/{quote(invoice, safe='')}/pdf")

    async def issuer(self) -> PartyInfo:
        return await self.call(PartyInfo, "GET", _ISSUER)

    async def replace_issuer(self, details: Mapping[str, str]) -> PartyInfo:
        return await self.call(PartyInfo, "PUT", _ISSUER, body=details)

    async def billing_details(self, organization: str) -> PartyInfo:
        return await self.call(PartyInfo, "GET", _of(organization, "billing_details"))

    async def replace_billing_details(self, organization: str, details: Mapping[str, str]) -> PartyInfo:
        return await self.call(PartyInfo, "PUT", _of(organization, "billing_details"), body=details)

    async def time_zone(self, organization: str) -> TimeZoneInfo:
        return await self.call(TimeZoneInfo, "GET", _of(organization, "time_zone"))

    async def change_time_zone(self, organization: str, time_zone: str) -> TimeZoneInfo:
        """Let the organization's periods end in an IANA time zone, from the next one on."""
        return await self.call(TimeZoneInfo, "POST", _of(organization, "time_zone"), body={"time_zone": time_zone})

    def tax_rates(self) -> AsyncIterator[TaxRateInfo]:
        """Yield the published rates of tax, the last to start first."""
        return self.every(TaxRateInfo, _TAX_RATES)

    async def publish_tax_rate(self, rate: Body) -> TaxRateInfo:
        return await self.call(TaxRateInfo, "POST", _TAX_RATES, body=rate)

    async def tax_profile(self, organization: str) -> TaxProfileInfo:
        return await self.call(TaxProfileInfo, "GET", _of(organization, "tax"))

    async def change_tax_profile(
        self, organization: str, *, jurisdiction: str | None, exemption: str, reason: str
    ) -> TaxProfileInfo:
        """State where an organization pays tax, for all of its open periods; None is nowhere."""
        body = {"jurisdiction": jurisdiction, "exemption": exemption, "reason": reason}
        return await self.call(TaxProfileInfo, "PUT", _of(organization, "tax"), body=body)

    async def periods(self, organization: str) -> list[PeriodInfo]:
        """Return the newest periods of which something was charged."""
        return await self.listing(PeriodInfo, _of(organization, "periods"))

    async def preview_correction(self, organization: str, wanted: Mapping[str, object]) -> PreviewInfo:
        """Tell what a correction would change."""
        return await self.call(PreviewInfo, "POST", _of(organization, "corrections", "preview"), body=wanted)

    async def correct(
        self, organization: str, wanted: Mapping[str, object], *, reason: str, idempotency_key: str
    ) -> CorrectionInfo:
        """Ask for a correction; a worker applies it within seconds."""
        body = {**wanted, "reason": reason, "idempotency_key": idempotency_key}
        return await self.call(CorrectionInfo, "POST", _of(organization, "corrections"), body=body)

    async def correction(self, correction: str) -> CorrectionInfo:
        return await self.call(CorrectionInfo, "GET", f"/admin/corrections/{quote(correction, safe='')}")

    async def corrections(self, organization: str | None = None) -> list[CorrectionInfo]:
        return await self.listing(CorrectionInfo, "/admin/corrections", organization=organization)

    async def credit_notes(
        self, *, organization: str | None = None, invoice: str | None = None
    ) -> list[CreditNoteInfo]:
        return await self.listing(CreditNoteInfo, "/admin/credit_notes", organization=organization, invoice=invoice)

    async def credit_note_pdf(self, credit_note: str) -> bytes:
        return await self.content(f"/admin/credit_notes/{quote(credit_note, safe='')}/pdf")

    async def webhook_endpoints(self, organization: str) -> list[WebhookEndpointInfo]:
        return await self.listing(WebhookEndpointInfo, _of(organization, "webhook_endpoints"), limit=100)

    async def switch_webhook_endpoint(
        self, organization: str, endpoint: str, *, enabled: bool, reason: str = ""
    ) -> WebhookEndpointInfo:
        path = _of(organization, "webhook_endpoints", endpoint)
        return await self.call(WebhookEndpointInfo, "PATCH", path, body={"enabled": enabled, "reason": reason})

    async def replay_webhooks(self, organization: str, endpoint: str, *, since: int) -> WebhookReplayInfo:
        """Send an endpoint what it did not get since then, in unix seconds."""
        path = _of(organization, "webhook_endpoints", endpoint, "replay")
        return await self.call(WebhookReplayInfo, "POST", path, body={"since": since})

    async def webhook_events(self, organization: str, **wanted: str | int | None) -> list[WebhookEventInfo]:
        """Return the newest events; `wanted` are the filters of the API."""
        return await self.listing(WebhookEventInfo, _of(organization, "webhook_events"), **wanted)

    async def webhook_event(self, organization: str, event: str) -> WebhookEventInfo:
        return await self.call(WebhookEventInfo, "GET", _of(organization, "webhook_events", event))

    async def resend_webhook_event(self, organization: str, event: str, endpoint: str) -> WebhookEventInfo:
        path = _of(organization, "webhook_events", event, "resend")
        return await self.call(WebhookEventInfo, "POST", path, body={"webhook_endpoint_id": endpoint})

    async def payments(self, *, organization: str | None = None, state: str | None = None) -> list[PaymentInfo]:
        return await self.listing(PaymentInfo, "/admin/payments", organization=organization, state=state)

    async def automatic_top_up(self, organization: str) -> AutomaticTopUpInfo:
        return await self.call(AutomaticTopUpInfo, "GET", _of(organization, "automatic_top_up"))

    async def stop_automatic_top_up(self, organization: str) -> ApiObject:
        return await self.call(ApiObject, "DELETE", _of(organization, "automatic_top_up"))

    async def dunned(self, organization: str | None = None) -> list[DunningInfo]:
        return await self.listing(DunningInfo, "/admin/dunning", organization=organization)

    async def except_from_dunning(
        self, organization: str, *, exempt: bool, paused_until_ms: int, reason: str
    ) -> DunningExceptionInfo:
        """State it whole, in place of what was stated before; 0 is no pause."""
        body = {"exempt": exempt, "paused_until_ms": paused_until_ms, "reason": reason}
        return await self.call(DunningExceptionInfo, "PUT", _of(organization, "dunning"), body=body)

    async def trial_balance(self) -> TrialBalanceInfo:
        return await self.call(TrialBalanceInfo, "GET", "/admin/books")

    async def alarms(self, limit: int) -> list[AlarmInfo]:
        return await self.listing(AlarmInfo, "/admin/alarms", limit=limit)

    async def usage_of_month(self, organization: str, month: str) -> list[UsageInfo]:
        return await self.listing(UsageInfo, _of(organization, "usage"), month=month)

    async def invoices_of(self, organization: str, month: str | None = None) -> list[InvoiceInfo]:
        """Return an organization's newest invoices with their lines."""
        return await self.listing(InvoiceInfo, _of(organization, "invoices"), month=month)

    async def grants(self, organization: str) -> list[GrantInfo]:
        return await self.listing(GrantInfo, _of(organization, "credits"))

    async def grant_credit(self, organization: str, amount: int, *, reason: str, idempotency_key: str) -> GrantInfo:
        body = {"amount": amount, "reason": reason, "idempotency_key": idempotency_key}
        return await self.call(GrantInfo, "POST", _of(organization, "credits"), body=body)

    async def request(self, request: str) -> RequestInfo:
        """Return all that is known of a request or a training job."""
        return await self.call(RequestInfo, "GET", f"/admin/requests/{quote(request, safe='')}")

    async def reconcile(self) -> ReconciliationInfo:
        return await self.call(ReconciliationInfo, "POST", "/admin/reconcile", timeout_s=RECONCILE_TIMEOUT_S)


def _plan(plan: str) -> str:
    return f"{_PLANS}/{quote(plan, safe='')}"


def _of(organization: str, *rest: str) -> str:
    return "/".join(("/admin/organizations", *(quote(part, safe="") for part in (organization, *rest))))
