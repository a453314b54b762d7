"""vLLM's schedulers, made fair between organizations (pinned: 0.32).

vLLM keeps its work: it hands out tokens to those that run in the order of `running`, then takes from `waiting` what it
finds memory and slots for. Here both are put into the order of service before each step, and each step is charged to
those it was made for.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import FCFSRequestQueue, SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from tokenyard_deployments.serving.engine.grammars.compiling import bound_grammars
from tokenyard_deployments.serving.engine.scheduling.adapter_slots import AdapterSlots
from tokenyard_deployments.serving.engine.scheduling.caller import Caller, take_caller
from tokenyard_deployments.serving.engine.scheduling.report import ReportWriter
from tokenyard_deployments.serving.engine.scheduling.sequences import prefill_left
from tokenyard_deployments.serving.engine.scheduling.service import WeightedService
from tokenyard_deployments.serving.engine.scheduling.settings import fairness_of
from tokenyard_deployments.serving.engine.scheduling.step_order import held_prefills, in_turn, most_served, over_share
from tokenyard_deployments.serving.engine.scheduling.waiting_line import WaitingLine
from tokenyard_deployments.serving.engine.scheduling.waiting_queue import FairQueue

FORGET_EVERY = 1024  # steps
# So many computed blocks are looked up in a step, at a microsecond each: who comes after counts as having none.
MAX_LOOKED_UP = 2048


class FairScheduling(Scheduler):  # type: ignore[misc]
    """What is added to either of vLLM's schedulers."""

    running: list[Request]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bound_grammars(self.structured_output_manager)
        fairness = fairness_of(self.vllm_config.additional_config)
        self._reserved = min(fairness.reserved_slots, self.max_num_active_reqs - 1)
        self._quantum = fairness.quantum
        self._service = WeightedService()
        self._line: WaitingLine[Request] = WaitingLine(self._service, fairness.quantum)
        places = self.lora_config.max_loras if self.lora_config else 0
        self._adapters = AdapterSlots(places, self._service, fairness.quantum)
        self._reports = ReportWriter()
        self.waiting = FairQueue(self._line, organization_of, self._pick)
        # Where memory is short vLLM stops the request of the highest `priority`: the most served organization's.
        self.policy = SchedulingPolicy.PRIORITY
        self.kv_holding_waiting = FCFSRequestQueue()
        self._short_of_memory: Request | None = None
        # Of this step: what must not start again in it, whose prefills are held, who finds no memory, and how much of a
        # prompt is computed already.
        self._stopped: set[str] = set()
        self._held: set[str] = set()
        self._without_memory: set[str] = set()
        self._resident: dict[str, int] = {}
        self._looked_up = 0
        self._computed_nothing = False

    def add_request(self, request: Request) -> None:
        if request.request_id not in self.requests:
            request.caller = caller = take_caller(request)
            request.charged_tokens = 0
            request.first_token_told = False
            self._service.arrive(caller.organization, caller.weight, self._line.organizations)
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        self._begin_step()
        output = super().schedule(*args, **kwargs)
        self._end_step(output)
        return output

    def make_stats(self, *args: Any, **kwargs: Any) -> Any:
        stats = super().make_stats(*args, **kwargs)
        if stats is not None:
            self._reports.attach(stats, self._line, self.running, self._service, self._resident)
        return stats

    def _begin_step(self) -> None:
        self.waiting.begin_step()
        self._stopped.clear()
        self._held.clear()
        self._without_memory.clear()
        self._resident.clear()
        self._looked_up = 0
        self._make_room_in_memory()
        self._make_room_in_slots()
        self._make_room_for_adapters()
        running = self._running_by_organization()
        standings = {one: self._standing(one, running) for one in {*running, *self._line.organizations}}
        self.running = in_turn(self.running, standings.__getitem__, organization_of)
        ranks = {one: rank for rank, one in enumerate(sorted(running, key=standings.__getitem__))}
        for request in self.running:
            request.priority = ranks[organization_of(request)]
        self._hold_prefills(standings)

    def _end_step(self, output: SchedulerOutput) -> None:
        for request_id, tokens in output.num_scheduled_tokens.items():
            request = self.requests[request_id]
            self._charge(request, tokens)
            if not request.is_prefill_chunk and not request.first_token_told:
                request.first_token_told = True
                self._reports.first_token_comes(request)
        self._computed_nothing = not output.num_scheduled_tokens
        last_looked_at = self.waiting.end_step()
        # Where prompts are not cut to pieces, one may only have been too long for what the step had left.
        self._short_of_memory = last_looked_at if self.scheduler_config.enable_chunked_prefill else None
        if self.current_step % FORGET_EVERY == 0:
            self._service.forget({organization_of(one) for one in self.requests.values()})

    def _charge(self, request: Request, tokens: int) -> None:
        """Charge a step's tokens; what is computed again after its organization made room is not charged again."""
        end = request.num_computed_tokens
        begin = max(end - tokens, request.charged_tokens)
        if begin < end:
            prompt = max(0, min(end, request.num_prompt_tokens) - begin)
            self._service.charge(organization_of(request), prompt, end - begin - prompt)
            request.charged_tokens = end

    # Who starts

    def _pick(self) -> tuple[str, Request] | None:
        return self._line.pick(self._eligible(), self._resident_tokens)

    def _eligible(self) -> dict[str, list[Request]]:
        free = self._free_slots
        if free <= 0:
            return {}
        return self._line.eligible(
            running=self._running_by_organization(),
            only_idle=free <= self._reserved and bool(self.running),
            may_start=self._startable_beside(self._running_adapters),
        )

    def _ready(self, request: Request) -> bool:
        """Whether nothing but its turn keeps a request from starting."""
        if request.request_id in self._stopped or organization_of(request) in self._held:
            return False
        if request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
            return bool(request.structured_output_request.is_grammar_ready)
        return bool(request.status != RequestStatus.WAITING_FOR_STREAMING_REQ)

    def _resident_tokens(self, request: Request) -> int:
        found = self._resident.get(request.request_id)
        if found is None:
            if self._looked_up > MAX_LOOKED_UP:
                return 0
            found = self.kv_cache_manager.get_computed_blocks(request)[1] if not request.num_computed_tokens else 0
            self._looked_up += found // self.block_size
            self._resident[request.request_id] = found
        return found

    # Who makes room

    def _make_room_in_memory(self) -> None:
        """Stop the most served until a request fits that found no memory in the last step, if it is a newcomer's."""
        request, self._short_of_memory = self._short_of_memory, None
        if request is None or request.is_finished():
            return
        newcomer = organization_of(request)
        while not self._finds_memory(request):
            if not self._is_idle(newcomer) or not self._stop_most_served(newcomer):
                self._without_memory.add(newcomer)
                return

    def _finds_memory(self, request: Request) -> bool:
        needed = -(-request.num_tokens // self.block_size) + 1
        return bool(self.kv_cache_manager.block_pool.get_num_free_blocks() >= needed)

    def _make_room_in_slots(self) -> None:
        """Stop one sequence of the most served for each newcomer that finds no slot, or else for whoever lacks most."""
        free = self._free_slots
        if free > self._reserved and free >= len(self._line.organizations):
            return  # a slot for each of them
        running = self._running_by_organization()
        may_start = self._startable_beside(self._running_adapters)
        able = (one for one in self._line.organizations if self._line.looked_at(one, may_start, 1))
        waiting = sorted(able, key=self._service.of)
        if not waiting:
            return
        limit = self._service.of(waiting[0]) + self._quantum
        newcomers = [one for one in waiting if not running[one] and self._service.of(one) <= limit]
        for organization in newcomers[max(0, free) :]:
            if not self._stop_most_served(organization):
                return
        if free <= self._reserved and not newcomers:
            counts = {one: running[one] for one in {*running, *waiting}}
            next((one for one in waiting if self._stop_over_share(one, counts)), None)

    def _stop_over_share(self, organization: str, running: dict[str, int]) -> bool:
        slots = self.max_num_active_reqs - self._reserved
        loser = over_share(running, organization, slots, self._service, self._quantum)
        theirs = [one for one in self.running if organization_of(one) == loser]
        if theirs:
            self._stop(max(theirs, key=lambda one: one.arrival_time))
        return bool(theirs)

    def _make_room_for_adapters(self) -> None:
        """Let the least served of those that only want for an adapter's place have one."""
        running = self._running_by_organization()
        holders = self._running_adapters
        for organization in sorted(self._line.organizations, key=lambda one: self._standing(one, running)):
            ready = self._line.looked_at(organization, self._ready)
            if not ready:
                continue
            adapter = caller_of(ready[0]).adapter
            if adapter is None or any(self._adapters.fits(caller_of(one).adapter, holders) for one in ready):
                break
            losing = self._adapters.claim(organization, adapter, holders)
            if losing is not None:
                for request in [one for one in self.running if caller_of(one).adapter == losing]:
                    self._stop(request)
            return
        self._adapters.no_claim()

    def _stop_most_served(self, newcomer: str) -> bool:
        running = self._running_by_organization()
        request = most_served(
            self.running,
            newcomer,
            lambda one: self._standing(one, running),
            organization_of,
            self._request_blocks_can_be_freed,
            # Of organizations with one sequence each, so they do not stop each other in turn.
            margin=self._quantum + max(self._quantum, self.max_num_scheduled_tokens),
        )
        if request is None:
            return False
        self._stop(request)
        return True

    def _stop(self, request: Request) -> None:
        """Send a running request back to wait; its blocks stay computed as long as nobody needs them."""
        if not self._request_blocks_can_be_freed(request):
            return
        self.running.remove(request)
        self._preempt_request(request, time.monotonic(), drop_stale_output=self.requires_kv_delivery)
        # vLLM could not tell a request that stops and starts in one step from one that ran on.
        self._stopped.add(request.request_id)

    def _hold_prefills(self, standings: dict[str, float]) -> None:
        if self._computed_nothing or not any(one.is_prefill_chunk for one in self.running):
            return
        eligible = self._eligible()
        first = self._line.pick(eligible, self._resident_tokens)
        # Whoever comes first and finds no memory lets nobody start: a prefill that is held would wait for ever, with
        # the memory that is wanted.
        if first is None or not self._finds_memory(first[1]):
            return
        free = self._free_slots
        wanted = {
            organization: sum(prefill_left(one) - self._resident_tokens(one) for one in startable[:free])
            for organization, startable in eligible.items()
            if organization not in self._without_memory
        }
        for request in held_prefills(
            self.running, wanted, self.max_num_scheduled_tokens, standings.__getitem__, organization_of
        ):
            self._held.add(organization_of(request))
            # The step that comes is the next one: vLLM passes over whoever is not due before the one after it.
            request.next_decode_eligible_step = max(request.next_decode_eligible_step, self.current_step + 2)

    def _startable_beside(self, adapters: Collection[int]) -> Callable[[Request], bool]:
        """Return what tells whether a request may start beside those that run over `adapters`."""
        return lambda one: self._ready(one) and self._adapters.fits(caller_of(one).adapter, adapters)

    # What runs

    @property
    def _free_slots(self) -> int:
        return int(self.max_num_active_reqs - len(self.running) - self.num_waiting_for_streaming_input)

    def _running_by_organization(self) -> Counter[str]:
        return Counter(organization_of(one) for one in self.running)

    @property
    def _running_adapters(self) -> dict[int, set[str]]:
        """Whose requests run over each adapter, those included that this step passes over."""
        holders: dict[int, set[str]] = {}
        for request in self.running:
            caller = caller_of(request)
            if caller.adapter is not None:
                holders.setdefault(caller.adapter, set()).add(caller.organization)
        return holders

    def _is_idle(self, organization: str) -> bool:
        return all(organization_of(one) != organization for one in self.running)

    def _standing(self, organization: str, running: Counter[str]) -> float:
        return self._service.of(organization) - (0.0 if running[organization] else self._quantum)


class FairScheduler(FairScheduling):
    """For an engine that schedules a step when the one before it is done."""


class FairAsyncScheduler(FairScheduling, AsyncScheduler):  # type: ignore[misc]
    """For an engine that schedules a step while the one before it runs."""


def caller_of(request: Request) -> Caller:
    caller: Caller = request.caller
    return caller


def organization_of(request: Request) -> str:
    return caller_of(request).organization


def fair_scheduler(*, vllm_config: Any, **arguments: Any) -> FairScheduling:
    """Return the scheduler for an engine; this is what `scheduler_cls` names, and vLLM calls it as a class."""
    chosen = FairAsyncScheduler if vllm_config.scheduler_config.async_scheduling else FairScheduler
    return chosen(vllm_config=vllm_config, **arguments)
