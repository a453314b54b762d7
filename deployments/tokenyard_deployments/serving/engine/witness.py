"""Reads the tokens of each sequence where vLLM's output processor ends it."""

from collections.abc import Callable, Iterable
from typing import Any

from tokenyard.core.usage import TokenUsage
from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT, AttemptTokens
from tokenyard_deployments.serving.engine.pinned import require
from tokenyard_deployments.serving.engine.scheduling.caller import tell_caller


class EngineWitness:
    """Counts what the engine did for each attempt, also when it is aborted.

    Wrapping `generate()` would see nothing of an aborted request that did not stream.
    """

    def __init__(self, processor: Any) -> None:
        """Take the place of three methods of vLLM's own `processor`; another one raises `UnknownEngine`."""
        require(processor, "request_states", "add_request", "_finish_request", "abort_requests")
        self._attempts: dict[str, AttemptTokens] = {}
        self._states: dict[str, Any] = processor.request_states
        self._vllm_add: Callable[..., None] = processor.add_request
        self._vllm_finish: Callable[..., None] = processor._finish_request
        self._vllm_abort: Callable[..., list[str]] = processor.abort_requests
        processor.add_request = self._add_request
        processor._finish_request = self._finish_request
        processor.abort_requests = self._abort_requests

    def _add_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        attempt = CURRENT_ATTEMPT.get()
        if attempt is not None:
            attempt.check_open()
            tell_caller(request, attempt.claims)
        self._vllm_add(request, *args, **kwargs)
        sequence = request.request_id
        if attempt is not None and sequence not in self._attempts:
            self._attempts[sequence] = attempt
            detokenizer = self._states[sequence].detokenizer
            attempt.started(sequence, detokenizer.num_output_tokens if detokenizer else None)

    def _finish_request(self, state: Any) -> None:
        self._count(state.request_id, state, aborted=False)
        self._vllm_finish(state)

    def _abort_requests(self, request_ids: Iterable[str], internal: bool) -> list[str]:
        before = {sequence: self._states.get(sequence) for sequence in self._attempts}
        aborted = self._vllm_abort(request_ids, internal)
        for sequence, state in before.items():
            if state is not None and sequence not in self._states:
                self._count(sequence, state, aborted=True)
        return aborted

    def _count(self, sequence: str, state: Any, *, aborted: bool) -> None:
        attempt = self._attempts.pop(sequence, None)
        if attempt is not None:
            prompt = state.parent_req.request_id if state.parent_req is not None else sequence
            attempt.ended(sequence, str(prompt), _usage(state), aborted=aborted)


def _usage(state: Any) -> TokenUsage:
    if state.is_prefilling:
        # Not one output came back: how much of the prompt was computed is not known here, so none of it is billed.
        return TokenUsage(prompt_tokens=0, completion_tokens=0)
    return TokenUsage(
        prompt_tokens=state.prompt_len,
        completion_tokens=state.detokenizer.num_output_tokens() if state.detokenizer else 0,
        cached_tokens=state.num_cached_tokens,
    )
