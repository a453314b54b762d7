"""A process that tries grammars out, one at a time, organizations in rotation."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from vllm.sampling_params import StructuredOutputsParams

from tokenyard_deployments.serving.engine.grammars.round_robin import RoundRobin
from tokenyard_deployments.serving.engine.grammars.trial import GrammarTried, keep_trials

_LOG = logging.getLogger(__name__)
MAX_WAITING = 8  # of one organization
# By the clock: a trial runs below everything else on the machine, so it may be a while until it has had its time.
LATENESS = 10.0
SLACK_S = 20.0
START_S = 120.0


class TrialsLost(Exception):
    """The process died or does not answer; a new one is on its way."""


class TrialLane:
    """Each trial may take `cpu_s` seconds of a processor; `config` is vLLM's."""

    def __init__(self, config: Any, cpu_s: float) -> None:
        self._config = config
        self._cpu_s = cpu_s
        self._order = RoundRobin(MAX_WAITING)
        self._thread = ThreadPoolExecutor(1, "grammar trials")
        self._started = False
        self.process, self._connection = self._start()

    async def tried(self, constraint: StructuredOutputsParams, organization: str) -> GrammarTried:
        """Return the outcome.

        Raises:
            TooManyWaiting: of this organization.
            TrialsLost: nobody can tell now.
        """
        async with self._order.one(organization):
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, constraint)

    def close(self) -> None:
        """End the process; it also ends with this one."""
        self._thread.shutdown()
        self._connection.close()
        self.process.join()

    def _ask(self, constraint: StructuredOutputsParams) -> GrammarTried:
        limit_s = self._cpu_s * LATENESS + (SLACK_S if self._started else START_S)
        try:
            self._connection.send(constraint)
            if not self._connection.poll(limit_s):
                raise TimeoutError(f"no outcome within {limit_s} s")
            outcome: GrammarTried = self._connection.recv()
        except (OSError, EOFError) as error:
            _LOG.warning("grammars cannot be tried out: %r", error)
            self.process.kill()
            self._connection.close()
            self.process, self._connection = self._start()
            raise TrialsLost from error
        self._started = True
        return outcome

    def _start(self) -> tuple[BaseProcess, Connection]:
        self._started = False
        context = get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=keep_trials, args=(theirs, self._config, self._cpu_s), daemon=True)
        process.start()
        theirs.close()
        return process, ours
