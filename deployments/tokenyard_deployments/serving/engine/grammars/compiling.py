"""How the engine's own process compiles and follows grammars (vLLM 0.32, xgrammar 0.2)."""

import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from threading import Condition
from typing import Any

import xgrammar as xgr
from cachetools import LRUCache, cachedmethod
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend, XgrammarGrammar

from tokenyard_deployments.serving.engine.pinned import require

_LOG = logging.getLogger(__name__)
NICENESS = 10
# Of what takes long, one at a time comes through the trials: a second one, and those that take no time, go beside it.
COMPILERS = 3
CACHE_BYTES = 256 << 20
# A sequence may take this much of everybody's steps for its constraint, and so much more with each of its tokens.
ALLOWANCE_S = 0.5
ALLOWANCE_PER_TOKEN_S = 0.005


def bound_grammars(manager: Any) -> None:
    """Let the scheduler's `StructuredOutputManager` compile below everything else and follow nothing slow.

    Raises:
        UnknownEngine: it is not the manager that is known here.
    """
    require(manager, "vllm_config")
    config = manager.vllm_config
    if config.model_config.skip_tokenizer_init:
        return  # nor does vLLM make grammars then
    require(manager, "backend", "executor", "tokenizer", "grammar_init")
    # vLLM's pool has a thread for every two processors, and all requests' grammars pass through it.
    manager.executor.shutdown(wait=False)
    manager.executor = ThreadPoolExecutor(COMPILERS, "grammar", initializer=os.nice, initargs=(NICENESS,))
    if config.model_config.runner_type == "generate":
        vocabulary = config.model_config.get_vocab_size()
        manager.backend = BoundedXgrammar(config, tokenizer=manager.tokenizer, vocab_size=vocabulary)


def _key(_backend: object, request_type: StructuredOutputOptions, grammar_spec: str) -> bytes:
    return hashlib.sha256(f"{request_type.name} {grammar_spec}".encode("utf-8", "surrogatepass")).digest()


@dataclass
class GuardedGrammar(XgrammarGrammar):  # type: ignore[misc]
    """Ends its own sequence, with an error, once following it has taken too much of everybody's steps."""

    spent_s: float = 0.0

    def fill_bitmask(self, bitmask: Any, idx: int) -> None:
        began = time.thread_time()
        super().fill_bitmask(bitmask, idx)
        self.spent_s += time.thread_time() - began

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        if self.spent_s > ALLOWANCE_S + ALLOWANCE_PER_TOKEN_S * self.num_processed_tokens:
            _LOG.warning("the grammar of %s took %.2f s of the engine's steps: it is ended", request_id, self.spent_s)
            return False
        return bool(super().accept_tokens(request_id, tokens))


@dataclass
class BoundedXgrammar(XgrammarBackend):  # type: ignore[misc]
    """vLLM's xgrammar, on one thread and with a cache of our own.

    With xgrammar's cache a class repeated 129 to some 10,000 times, such as `[a-z]{1,200}`, fails to compile
    ("Check failed: per_rule_fsm_hashes").
    """

    cache_bytes: int = CACHE_BYTES

    def __post_init__(self) -> None:
        super().__post_init__()
        self.compiler: xgr.GrammarCompiler = _uncached(self.compiler)
        self._cache: LRUCache[bytes, xgr.CompiledGrammar] = LRUCache(
            self.cache_bytes, getsizeof=lambda compiled: compiled.memory_size_bytes
        )
        self._cached = Condition()

    def compile_grammar(
        self, request_type: StructuredOutputOptions, grammar_spec: str, stop_token_ids: set[int] | None = None
    ) -> GuardedGrammar:
        compiled = self._compile(request_type, grammar_spec)
        stops = list(stop_token_ids) if stop_token_ids else None
        matcher = xgr.GrammarMatcher(compiled, override_stop_tokens=stops)
        return GuardedGrammar(self.vocab_size, matcher, compiled)

    @cachedmethod(attrgetter("_cache"), key=_key, condition=attrgetter("_cached"))
    def _compile(self, request_type: StructuredOutputOptions, grammar_spec: str) -> xgr.CompiledGrammar:
        compiled: xgr.CompiledGrammar = super().compile_grammar(request_type, grammar_spec).ctx
        return compiled


def _uncached(compiler: xgr.GrammarCompiler) -> xgr.GrammarCompiler:
    vocabulary = compiler.compile_grammar('root ::= "a"').tokenizer_info
    return xgr.GrammarCompiler(vocabulary, max_threads=1, cache_enabled=False)
