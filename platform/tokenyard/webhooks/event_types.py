"""The types of events: the one list of them. Those of jobs have the names that OpenAI's API gives them."""

from collections.abc import Sequence
from typing import Literal, get_args

EventType = Literal[
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "invoice.issued",
    "invoice.paid",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "credit_note.issued",
    "credit.granted",
    "budget.alert",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
EVERY_TYPE: Literal["*"] = "*"
"""Subscribes to all types, also those that there will be."""


def subscribes(wanted: Sequence[str], kind: str) -> bool:
    return EVERY_TYPE in wanted or kind in wanted
