"""Tries a grammar out as the engine will use it, in a process that a bad one may end (vLLM 0.32, xgrammar 0.2).

xgrammar is a compiler in C++ that its input can send into a recursion without end (a segmentation fault), into minutes
of work or into gigabytes. Here each of them ends a worker and nothing else. A keeper forks the workers, because
loading vLLM again would take seconds.
"""

import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, NoReturn

import torch
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar
from vllm.v1.structured_output.request import get_structured_output_key

from tokenyard_deployments.serving.engine.grammars.compiling import NICENESS, BoundedXgrammar, GuardedGrammar

WALK_TOKENS = 32
WALK_CPU_S = 0.1
WORKER_BYTES = 256 << 20  # what a worker may take beyond what it starts with
GRAMMAR_BYTES = 32 << 20  # what the engine has to keep of one
WORKER_TRIALS = 500  # then a fresh one takes over, whatever the compiler has leaked
_RENEW = 1

TOO_COSTLY = "it takes too long to compile. Use fewer alternatives, optional properties or repetitions."
TOO_LARGE = "it is too large when compiled. Use fewer alternatives, optional properties or repetitions."
TOO_SLOW = "it takes too long to follow. Use fewer alternatives, optional properties or repetitions."
UNSATISFIABLE = "no text can match it."
UNSUPPORTED = "it asks for what is not supported."
BROKEN = "it cannot be compiled."

# "[04:05:06] /project/cpp/regex_converter.cc:83: Regex parsing error at position 4: Unclosed '['"
_WHERE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")
_WHAT = re.compile(r"Failed to transform [a-z ]+ into a grammar: ")
_INTERNAL = "Check failed"


class GrammarTried(NamedTuple):
    """The outcome of a trial; `refused` says of the grammar why the engine must not have it."""

    refused: str | None


def keep_trials(connection: Connection, config: Any, cpu_s: float) -> None:
    """Answer each `StructuredOutputsParams` that comes over `connection` until its other end is closed."""
    os.nice(NICENESS)
    torch.set_num_threads(1)
    tokenizer = cached_tokenizer_from_config(model_config=config.model_config)
    vocabulary = config.model_config.get_vocab_size()
    backend = BoundedXgrammar(config, tokenizer=tokenizer, vocab_size=vocabulary, cache_bytes=0)
    while True:
        worker = os.fork()
        if worker == 0:
            _work(connection, backend, cpu_s)
        _, status = os.waitpid(worker, 0)
        if os.WIFSIGNALED(status):
            connection.send(GrammarTried(_death(os.WTERMSIG(status))))
        elif os.WEXITSTATUS(status) != _RENEW:
            return


def _death(number: int) -> str:
    # C++ aborts where it finds no memory for its exception.
    return {signal.SIGPROF: TOO_COSTLY, signal.SIGABRT: TOO_LARGE}.get(signal.Signals(number), BROKEN)


def _work(connection: Connection, backend: BoundedXgrammar, cpu_s: float) -> NoReturn:
    status = os.EX_SOFTWARE
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + WORKER_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for _ in range(WORKER_TRIALS):
            connection.send(tried(connection.recv(), backend, cpu_s))
        status = _RENEW
    except EOFError:
        status = os.EX_OK
    finally:
        os._exit(status)


def tried(params: StructuredOutputsParams, backend: BoundedXgrammar, cpu_s: float) -> GrammarTried:
    """Compile as vLLM will, then follow some text that the grammar allows; too much work ends the process."""
    try:
        with _limited(cpu_s):
            validate_xgrammar_grammar(SamplingParams(structured_outputs=params))
            grammar = backend.compile_grammar(*get_structured_output_key(params))
            if grammar.ctx.memory_size_bytes > GRAMMAR_BYTES:
                return GrammarTried(TOO_LARGE)
            return GrammarTried(_followed(grammar, backend))
    except MemoryError:
        return GrammarTried(TOO_LARGE)
    except Exception as error:  # whatever a compiler of strangers' grammars says, it is about this grammar
        return GrammarTried(_reason(str(error)))


@contextmanager
def _limited(cpu_s: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _followed(grammar: GuardedGrammar, backend: BoundedXgrammar) -> str | None:
    mask, choice, spent_s = backend.allocate_token_bitmask(1), Random(0), 0.0  # noqa: S311 - the same walk each time
    for token in range(WALK_TOKENS):
        if grammar.is_terminated():
            break
        began = time.thread_time()
        grammar.fill_bitmask(mask, 0)
        spent_s += time.thread_time() - began
        allowed = (mask[0].unsqueeze(1) >> torch.arange(32) & 1).flatten()[: backend.vocab_size].nonzero()
        if not len(allowed):
            return None if token else UNSATISFIABLE
        began = time.thread_time()
        grammar.accept_tokens("trial", [int(choice.choice(allowed))])
        spent_s += time.thread_time() - began
        if spent_s > WALK_CPU_S:
            return TOO_SLOW
    return None


def _reason(message: str) -> str:
    if "bad_alloc" in message:
        return TOO_LARGE
    if "not supported by xgrammar" in message:
        return UNSUPPORTED
    if _INTERNAL in message:
        return BROKEN
    return f"{_WHERE.sub('', _WHAT.sub('', message)).strip().rstrip('.')}."
