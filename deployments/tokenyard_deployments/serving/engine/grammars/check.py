"""Lets a grammar at the engine only when it has been tried out, and keeps vLLM from parsing it on the event loop."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from cachetools import LRUCache
from vllm import SamplingParams
from vllm.exceptions import GracefulHTTPError, VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output import backend_xgrammar
from vllm.v1.structured_output.request import get_structured_output_key

from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT
from tokenyard_deployments.serving.engine.grammars.lane import TrialLane, TrialsLost
from tokenyard_deployments.serving.engine.grammars.round_robin import TooManyWaiting
from tokenyard_deployments.serving.engine.grammars.trial import TOO_COSTLY, GrammarTried
from tokenyard_deployments.serving.engine.pinned import require

# Most schemas compile in milliseconds. One `maxLength` over 128 takes 2 s, some honest ones take more, and behind those
# nobody else should wait.
QUICK_CPU_S = 0.5
THOROUGH_CPU_S = 10.0
REMEMBERED = 4096
_VALIDATE = "validate_xgrammar_grammar"


class GrammarRefused(VLLMValidationError):  # type: ignore[misc]
    """The client's schema or expression cannot be followed here."""

    def __str__(self) -> str:
        return str(self.args[0])


class GrammarCheck:
    """Tries each grammar out once, shortly, then thoroughly where that was not enough, and remembers the outcome."""

    def __init__(
        self, config: Any, *, quick_cpu_s: float = QUICK_CPU_S, thorough_cpu_s: float = THOROUGH_CPU_S
    ) -> None:
        """Start the processes; `config` is vLLM's. From here on vLLM uses xgrammar or refuses.

        vLLM's "auto" takes another compiler for what xgrammar refuses, but an engine has the same one for its life.
        """
        config.structured_outputs_config.backend = "xgrammar"
        self.lanes = (TrialLane(config, quick_cpu_s), TrialLane(config, thorough_cpu_s))
        self._outcomes: LRUCache[bytes, GrammarTried] = LRUCache(REMEMBERED)
        self._trials: dict[bytes, asyncio.Task[GrammarTried]] = {}

    def close(self) -> None:
        for lane in self.lanes:
            lane.close()

    def guard(self, client: Any) -> None:
        """Take the place of `client.add_request`; `client` is vLLM's `AsyncLLM`.

        Raises:
            UnknownEngine: it is not the client that is known here.
        """
        require(client, "add_request")
        require(backend_xgrammar, _VALIDATE)
        client.add_request = partial(self._add_request, client.add_request)
        setattr(backend_xgrammar, _VALIDATE, partial(_was_tried, getattr(backend_xgrammar, _VALIDATE)))

    async def _add_request(
        self, add: Callable[..., Any], request_id: str, prompt: Any, params: Any, *args: Any, **more: Any
    ) -> Any:
        constraint = getattr(params, "structured_outputs", None)
        if constraint is not None and not constraint.all_constraints_none():
            await self.check(constraint)
        return await add(request_id, prompt, params, *args, **more)

    async def check(self, constraint: StructuredOutputsParams) -> None:
        """Return when the engine may have it.

        Raises:
            GrammarRefused: it must not.
            GracefulHTTPError: too many of this organization's wait to be tried out, or trials cannot be had now.
        """
        kind, text = get_structured_output_key(constraint)
        key = hashlib.sha256(f"{kind.name} {text}".encode("utf-8", "surrogatepass")).digest()
        outcome = self._outcomes.get(key)
        if outcome is None:
            # A task of its own: its turn is not over when a client that waits for it leaves.
            trial = self._trials.get(key)
            if trial is None:
                trial = self._trials[key] = asyncio.create_task(self._tried(constraint), name="grammar trial")
                trial.add_done_callback(partial(self._remember, key))
            outcome = await asyncio.shield(trial)
        if outcome.refused is not None:
            raise GrammarRefused(f"Invalid schema: {outcome.refused}", parameter="response_format")

    async def _tried(self, constraint: StructuredOutputsParams) -> GrammarTried:
        attempt = CURRENT_ATTEMPT.get()
        organization = attempt.claims.organization if attempt else ""
        quick, thorough = self.lanes
        try:
            outcome = await quick.tried(constraint, organization)
            if outcome.refused == TOO_COSTLY:
                outcome = await thorough.tried(constraint, organization)
        except TooManyWaiting:
            raise _unavailable("Too many new schemas are being compiled. Please try again shortly.") from None
        except TrialsLost:
            raise _unavailable("New schemas cannot be compiled now. Please try again shortly.") from None
        return outcome

    def _remember(self, key: bytes, trial: asyncio.Task[GrammarTried]) -> None:
        del self._trials[key]
        if not trial.cancelled() and trial.exception() is None:
            self._outcomes[key] = trial.result()


def _unavailable(message: str) -> GracefulHTTPError:
    return GracefulHTTPError(message, HTTPStatus.SERVICE_UNAVAILABLE)


def _was_tried(validate: Callable[[SamplingParams], None], params: SamplingParams) -> None:
    # Of a choice, vLLM makes a grammar here.
    if params.structured_outputs is not None and params.structured_outputs.choice:
        validate(params)
