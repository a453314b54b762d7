"""Dunning as the API shows it."""

from typing import Annotated, Literal

from tokenyard.web.pages import Identified
from tokenyard_billing.views import View, of


class DunningView(View, Identified):
    """How far an overdue invoice has come; `id` is that of the invoice. `blocks`: it keeps its organization blocked."""

    id: Annotated[str, of("invoice")]
    object: Literal["dunning"] = "dunning"
    organization: str
    steps: int
    stepped_at_ms: int
    blocks: bool


class DunningExceptionView(View, Identified):
    """What an operator stated of an organization; `id` is its own. `changed_at_ms` is null where that is nothing."""

    id: Annotated[str, of("organization")]
    object: Literal["dunning_exception"] = "dunning_exception"
    exempt: bool = False
    paused_until_ms: int = 0
    reason: str = ""
    actor: str = ""
    changed_at_ms: int | None = None
