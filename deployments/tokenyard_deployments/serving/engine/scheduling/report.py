"""The scheduler's state on its way to the replica's metrics, by weight: an organization is no label of a metric."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram
from vllm.v1.request import Request

from tokenyard_deployments.serving.engine.pinned import require
from tokenyard_deployments.serving.engine.scheduling.sequences import prefill_left
from tokenyard_deployments.serving.engine.scheduling.service import WeightedService
from tokenyard_deployments.serving.engine.scheduling.waiting_line import WaitingLine

_KEY = "tokenyard"
REPORT_EVERY_S = 0.1
"""Gateways choose replicas by it."""
MAX_FIRST_TOKENS = 4096
_TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class ReportWriter:
    """In the engine's process: adds to vLLM's statistics, now and then, what vLLM does not know.

    They have no field of ours; `ec_connector_stats` is a free one, whose own content is put back at the other end.
    """

    def __init__(self) -> None:
        self._due = 0.0
        self._first_tokens: list[Request] = []
        self._waits: list[tuple[int, float]] = []

    def first_token_comes(self, request: Request) -> None:
        """Note that the step under way generates the first token of `request`."""
        self._first_tokens.append(request)

    def attach(
        self,
        stats: Any,
        line: WaitingLine[Request],
        running: list[Request],
        service: WeightedService,
        resident: Mapping[str, int],
    ) -> None:
        """Write into vLLM's `SchedulerStats` of the step that is done.

        `resident` tells of some that wait how many of their tokens are computed already.
        """
        now = time.time()
        self._waits += [(one.caller.weight, now - one.arrival_time) for one in self._first_tokens]
        self._first_tokens.clear()
        if now < self._due and (running or len(line)):  # without them there is no next step to tell it after
            return
        self._due = now + REPORT_EVERY_S
        waiting, busy, unfinished = Counter[int](), Counter[int](), 0
        for request in line:
            waiting[request.caller.weight] += prefill_left(request)
            unfinished -= resident.get(request.request_id, 0)
        for request in running:
            busy[request.caller.weight] += request.num_tokens
            unfinished += prefill_left(request) if request.is_prefill_chunk else 0
        backlogged = [service.of(one) for one in line.organizations]
        stats.ec_connector_stats = {
            _KEY: {
                "waiting_tokens": list(waiting.items()),
                "running_tokens": list(busy.items()),
                "prompt_tokens_left": unfinished + waiting.total(),
                "organizations": len({one.caller.organization for one in running} | set(line.organizations)),
                "gap": max(backlogged) - min(backlogged) if backlogged else 0.0,
                "waits": self._waits[-MAX_FIRST_TOKENS:],
            },
            "connector": stats.ec_connector_stats,
        }
        self._waits = []


class FairnessMetrics:
    """In the replica's process: takes the report out of vLLM's statistics and shows it in `registry`."""

    def __init__(self, processor: Any, registry: CollectorRegistry) -> None:
        """Take the place of a method of vLLM's output processor, which sees the statistics before its loggers do."""
        require(processor, "update_scheduler_stats")
        self._vllm_update = processor.update_scheduler_stats
        processor.update_scheduler_stats = self._update
        self.waiting_tokens = 0
        """Of all prompts inside the engine, those that are yet to be computed."""
        by_weight = ["weight"]
        self._waiting = Gauge(
            "tokenyard_waiting_tokens", "Prompt tokens that wait to be computed.", by_weight, registry=registry
        )
        self._running = Gauge(
            "tokenyard_running_tokens", "Tokens of the sequences that run.", by_weight, registry=registry
        )
        self._organizations = Gauge(
            "tokenyard_engine_organizations", "Organizations that have something in the engine.", registry=registry
        )
        self._gap = Gauge(
            "tokenyard_fairness_gap_tokens",
            "Most weighted service by which one of two organizations that wait is ahead of the other.",
            registry=registry,
        )
        self._first_token = Histogram(
            "tokenyard_engine_time_to_first_token_seconds",
            "From a sequence's arrival to its first token.",
            by_weight,
            buckets=_TTFT_BUCKETS,
            registry=registry,
        )

    def _update(self, stats: Any) -> None:
        theirs = stats.ec_connector_stats if stats is not None else None
        if theirs is not None and _KEY in theirs:
            stats.ec_connector_stats = theirs["connector"]
            self._show(theirs[_KEY])
        self._vllm_update(stats)

    def _show(self, report: dict[str, Any]) -> None:
        self.waiting_tokens = report["prompt_tokens_left"]
        for gauge, name in ((self._waiting, "waiting_tokens"), (self._running, "running_tokens")):
            gauge.clear()
            for weight, tokens in report[name]:
                gauge.labels(weight).set(tokens)
        self._organizations.set(report["organizations"])
        self._gap.set(report["gap"])
        for weight, seconds in report["waits"]:
            self._first_token.labels(weight).observe(seconds)
