"""Lets a grammar at the engine only when it has been tried out, and keeps vLLM from parsing it on the event loop."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from cachetools import LRUCache
from vllm import SamplingParams
from vllm.exceptions import GracefulHTTPError, VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output import backend_xgrammar
from vllm.v1.structured_output.request import get_structured_output_key

from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT
from tokenyard_deployments.serving.engine.grammars.trial import GrammarTried, keep_trials
from tokenyard_deployments.serving.engine.grammars.turns import TooManyWaiting, Turns
from tokenyard_deployments.serving.engine.pinned import require

_LOG = logging.getLogger(__name__)
MAX_WAITING = 8  # of one organization
TRIAL_LIMIT_S = 20.0  # of the clock: a trial runs below everything else on the machine
REMEMBERED = 4096
_VALIDATE = "validate_xgrammar_grammar"


class GrammarRefused(VLLMValidationError):
    """The client's schema or expression cannot be followed here."""

    def __str__(self) -> str:
        return str(self.args[0])


class GrammarCheck:
    """Tries out one grammar at a time, organizations in rotation, and remembers what came of it."""

    def __init__(self, config: Any) -> None:
        """Start the process for trials; `config` is vLLM's. From here on vLLM uses xgrammar or refuses.

        vLLM's "auto" takes another compiler for what xgrammar refuses, but an engine has the same one for its life.
        """
        self._config = config
        config.structured_outputs_config.backend = "xgrammar"
        self._turns = Turns(MAX_WAITING)
        self._outcomes: LRUCache[bytes, GrammarTried] = LRUCache(REMEMBERED)
        self._trials: dict[bytes, asyncio.Task[GrammarTried]] = {}
        self._thread = ThreadPoolExecutor(1, "grammar trials")
        self._process, self._connection = _started(config)

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
                trial = self._trials[key] = asyncio.create_task(self._tried(key, constraint), name="grammar trial")
                trial.add_done_callback(lambda _done: self._trials.pop(key))
            outcome = await asyncio.shield(trial)
        if outcome.refused is not None:
            raise GrammarRefused(f"Invalid schema: {outcome.refused}", parameter="response_format")

    async def _tried(self, key: bytes, constraint: StructuredOutputsParams) -> GrammarTried:
        attempt = CURRENT_ATTEMPT.get()
        try:
            async with self._turns.one(attempt.claims.organization if attempt else ""):
                outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, constraint)
        except TooManyWaiting:
            raise _unavailable("Too many new schemas are being compiled. Please try again shortly.") from None
        self._outcomes[key] = outcome
        return outcome

    def _ask(self, constraint: StructuredOutputsParams) -> GrammarTried:
        try:
            self._connection.send(constraint)
            if not self._connection.poll(TRIAL_LIMIT_S):
                raise TimeoutError(f"no outcome within {TRIAL_LIMIT_S} s")
            outcome: GrammarTried = self._connection.recv()
        except (OSError, EOFError) as error:
            _LOG.warning("grammars cannot be tried out: %r", error)
            self._process.kill()
            self._connection.close()
            self._process, self._connection = _started(self._config)
            raise _unavailable("Schemas cannot be compiled now. Please try again shortly.") from error
        return outcome


def _started(config: Any) -> tuple[BaseProcess, Connection]:
    context = get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=keep_trials, args=(theirs, config), daemon=True, name="grammar trials")
    process.start()
    theirs.close()
    return process, ours


def _unavailable(message: str) -> GracefulHTTPError:
    return GracefulHTTPError(message, HTTPStatus.SERVICE_UNAVAILABLE)


def _was_tried(validate: Callable[[SamplingParams], None], params: SamplingParams) -> None:
    # Of a choice, vLLM makes a grammar here.
    if params.structured_outputs is not None and params.structured_outputs.choice:
        validate(params)
