"""What the API answers: the fields that our clients read. The others are kept, so that `--json` prints them all.

Money is nano-dollars; times are unix seconds, or milliseconds where the name ends in `_ms`.
"""

from pydantic import BaseModel

Json = dict[str, object]

ENDED = ("succeeded", "failed", "cancelled")


class ApiObject(BaseModel, extra="allow", frozen=True):
    def as_json(self) -> Json:
        """Return the answer as it came."""
        return self.model_dump(mode="json", exclude_unset=True)


class Listing(ApiObject):
    """One page; `last_id` is the cursor of the next."""

    data: list[Json]
    has_more: bool = False
    last_id: str | None = None


class ProblemInfo(ApiObject):
    message: str
    code: str | None = None


class ApiProblem(ApiObject):
    """The body of a refusal."""

    error: ProblemInfo


class LimitsInfo(ApiObject):
    """Limits, and as a body the changes of some; None is without limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    monthly_spend_dollars: str | None = None


class LocalShareInfo(ApiObject):
    """What each gateway process may grant while Redis is away."""

    percent: int
    spend_dollars: str


class TierInfo(ApiObject):
    """What a plan grants to requests of a service tier."""

    weight: int
    price_multiplier: str | None = None


class TrainingLimitsInfo(ApiObject):
    """What a plan says of fine-tuning; None is the installation's own bound."""

    running: int | None = None
    unfinished: int | None = None
    tokens_per_day: int | None = None


class PlanInfo(ApiObject):
    """A plan; as a body its changes. `models` None is all of them; a tier or a local share that is None ends."""

    id: str = ""
    name: str = ""
    weight: int = 1
    limits: LimitsInfo = LimitsInfo()
    models: list[str] | None = None
    local_share: LocalShareInfo | None = None
    price_multiplier: str = "1"
    service_tiers: dict[str, TierInfo | None] = {}
    pinned_adapters: int = 0
    training: TrainingLimitsInfo = TrainingLimitsInfo()
    monthly_fee_dollars: str = "0"
    monthly_minimum_dollars: str = "0"
    prices_from_ms: int = 0


class KeyRulesInfo(ApiObject):
    """What a new key is for, and from where; None is everything, and everywhere."""

    scopes: list[str] | None = None
    models: list[str] | None = None
    addresses: list[str] | None = None


class OrganizationInfo(ApiObject):
    id: str
    slug: str
    name: str
    limits: LimitsInfo
    created_at: int
    archived_at: int | None = None
    blocked_reason: str = ""


class ProjectInfo(ApiObject):
    id: str
    name: str
    status: str
    limits: LimitsInfo
    created_at: int


class KeyInfo(ApiObject):
    id: str
    name: str
    redacted_value: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None


class ProjectKeyInfo(KeyInfo):
    limits: LimitsInfo


class NewKeyInfo(KeyInfo):
    value: str


class ModelInfo(ApiObject):
    """A base model; `adapters` counts the fine-tunes over it by state."""

    id: str
    task: str
    context_length: int
    callable: bool
    price_id: str | None
    adapters: dict[str, int]


class ModelFilesInfo(ApiObject):
    """The set of model files in force, or one that could be."""

    models: list[str]


class RateCardInfo(ApiObject):
    """A published rate card; only one asked for by itself tells its rates."""

    id: str
    version: str
    effective_from_ms: int
    published_at_ms: int
    published_by: str
    source: str


class JobInfo(ApiObject):
    """A fine-tuning job. Only operators see the organization's slug and what the job waits for."""

    id: str
    organization_id: str
    organization_slug: str | None = None
    model: str
    status: str
    waits_for: str | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    error: ProblemInfo | None = None
    created_at: int
    finished_at: int | None = None
    hyperparameters: Json = {}

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class TrialInfo(ApiObject):
    """One job of a sweep."""

    id: str
    hyperparameters: Json


class SweepInfo(ApiObject):
    """Jobs that are tried with other hyperparameters each; `best_trial` is the one whose model is kept."""

    id: str
    status: str
    best_trial: str | None
    fine_tuned_model: str | None
    cost_dollars: str
    trials: list[TrialInfo]


class EventInfo(ApiObject):
    id: str
    created_at: int
    level: str
    message: str


class FileInfo(ApiObject):
    id: str


class UsageInfo(ApiObject):
    """An organization's usage of one model in a month."""

    model: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    trained_tokens: int
    amount: int


class UsageResultInfo(ApiObject):
    """Usage of one group in one bucket; what was not grouped by is None."""

    organization: str | None = None
    model: str | None = None
    requests: int
    prompt_tokens: int
    completion_tokens: int
    trained_tokens: int
    amount: int


class UsageBucketInfo(ApiObject):
    start_time: int
    results: list[UsageResultInfo]


class UsagePage(ApiObject):
    data: list[UsageBucketInfo]
    next_page: str | None = None


class BalanceInfo(ApiObject):
    """What an organization (`id`) has left."""

    id: str
    available: int


class InvoiceLineInfo(ApiObject):
    """`amount` = `quantity` x `rate`; `unit` is tokens, hours or gigabyte_months. `tax` is by `tax_percent`."""

    usage_period: str
    model: str
    price: str
    kind: str
    quantity: int
    unit: str = "tokens"
    rate: int
    amount: int
    tax: int = 0
    tax_name: str = ""
    tax_percent: str = "0"


class InvoiceInfo(ApiObject):
    """`total` = sum of the lines; later charges are not in it yet.

    `amount_due` = `total` - `credit_applied` + `tax` - `tax_included` + `rounding`.
    """

    id: str
    organization: str
    period: str
    state: str
    lines: list[InvoiceLineInfo] = []
    number: str | None = None
    due_at_ms: int | None = None
    total: int
    credit_applied: int
    tax: int = 0
    tax_included: int = 0
    rounding: int = 0
    amount_due: int
    drafted_at_ms: int


class TimeZoneInfo(ApiObject):
    """In which time zone an organization's period that runs now ends, and the next one."""

    organization: str
    time_zone: str
    period: str
    next_time_zone: str
    next_period: str


class PeriodInfo(ApiObject):
    id: str
    start_ms: int
    end_ms: int
    closed_at_ms: int | None
    state: str


class AccountInfo(ApiObject):
    name: str
    amount: int


class TrialBalanceInfo(ApiObject):
    """The sums of all accounts; `total` is 0 where the books balance."""

    accounts: list[AccountInfo]
    total: int


class GrantInfo(ApiObject):
    amount: int
    reason: str
    actor: str
    granted_at_ms: int
