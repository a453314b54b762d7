"""A grammar that costs everybody's steps too much ends its own sequence."""

from types import SimpleNamespace

import pytest
import xgrammar as xgr

from tokenyard_deployments.serving.engine.grammars.compiling import (
    ALLOWANCE_PER_TOKEN_S,
    ALLOWANCE_S,
    GuardedGrammar,
    bound_grammars,
)
from tokenyard_deployments.serving.engine.pinned import UnknownEngine

A, END = 0, 2


@pytest.fixture
def grammar() -> GuardedGrammar:
    vocabulary = xgr.TokenizerInfo(["a", "b", "</s>"], vocab_size=3, stop_token_ids=[END])
    compiled = xgr.GrammarCompiler(vocabulary, max_threads=1).compile_grammar('root ::= "a"*')
    return GuardedGrammar(3, xgr.GrammarMatcher(compiled), compiled)


def test_within_its_allowance(grammar: GuardedGrammar) -> None:
    mask = xgr.allocate_token_bitmask(1, 3)
    grammar.fill_bitmask(mask, 0)
    assert int(mask[0, 0]) & 0b111 == 0b101
    assert 0 < grammar.spent_s < ALLOWANCE_S
    assert grammar.accept_tokens("request", [A])


def test_over_its_allowance(grammar: GuardedGrammar) -> None:
    grammar.spent_s = ALLOWANCE_S + ALLOWANCE_PER_TOKEN_S / 2
    assert not grammar.accept_tokens("request", [A])


def test_each_token_adds_to_it(grammar: GuardedGrammar) -> None:
    assert grammar.accept_tokens("request", [A])
    grammar.spent_s = ALLOWANCE_S + ALLOWANCE_PER_TOKEN_S / 2
    assert grammar.accept_tokens("request", [A])


def test_another_engine_is_not_started() -> None:
    config = SimpleNamespace(model_config=SimpleNamespace(skip_tokenizer_init=False))
    with pytest.raises(UnknownEngine, match="has no backend, executor"):
        bound_grammars(SimpleNamespace(vllm_config=config))
