"""Grammars tried out by the real compiler, in a process that may be lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import GracefulHTTPError
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.request import get_structured_output_key

from support.fuzz.schemas import Schema, doubling, holding, text
from support.fuzz.slow_schemas import UNCLOSED_RECURSION, minutes_of_work, pattern
from tokenyard_deployments.serving.engine.grammars.check import GrammarCheck, GrammarRefused
from tokenyard_deployments.serving.engine.grammars.compiling import bound_grammars
from tokenyard_deployments.serving.engine.grammars.lane import MAX_WAITING
from tokenyard_deployments.serving.engine.grammars.trial import (
    BROKEN,
    TOO_COSTLY,
    TOO_LARGE,
    UNSATISFIABLE,
    UNSUPPORTED,
)
from tokenyard_deployments.serving.engine.launch import load_ahead

THOROUGH_CPU_S = 4.0


@pytest.fixture(scope="module")
def config(base_model: Path) -> Any:
    load_ahead()
    return EngineArgs(model=str(base_model), max_model_len=1024, enforce_eager=True).create_engine_config()


@pytest.fixture(scope="module")
def grammars(config: Any) -> Iterator[GrammarCheck]:
    check = GrammarCheck(config, quick_cpu_s=0.2, thorough_cpu_s=THOROUGH_CPU_S)
    yield check
    check.close()


def _asked(schema: Schema) -> StructuredOutputsParams:
    return StructuredOutputsParams(json=json.dumps(schema))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (pattern(UNCLOSED_RECURSION), BROKEN),
        (minutes_of_work(0), TOO_COSTLY),
        ({"enum": ["x" * 40_000 + str(at) for at in range(5)]}, TOO_LARGE),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, UNSATISFIABLE),
        (pattern("[a"), "Regex parsing error at position 3: Unclosed '['."),
        (pattern("\ud800"), BROKEN),
        (holding(a={"type": "integer", "minimum": -(2**80)}), BROKEN),
        ({"type": "nothing"}, 'Unsupported type "nothing".'),
        ({"type": "array", "uniqueItems": True}, UNSUPPORTED),
    ],
    ids=["recursion", "work", "size", "nothing", "syntax", "surrogate", "number", "type", "keyword"],
)
async def test_refused_with_the_reason(grammars: GrammarCheck, schema: Schema, why: str) -> None:
    with pytest.raises(GrammarRefused) as refused:
        await grammars.check(_asked(schema))
    assert str(refused.value) == f"Invalid schema: {why}"
    assert refused.value.parameter == "response_format"
    await grammars.check(StructuredOutputsParams(json_object=True))


@pytest.mark.parametrize(
    "schema",
    [pattern("^[a-z]{1,200}$"), pattern("^[a-z]{1,1000}$"), doubling(40), holding(a=text(maxLength=50)), {}],
    ids=["repeated 200 times", "repeated 1000 times", "doubling references", "takes long", "anything"],
)
async def test_may_go_on(grammars: GrammarCheck, schema: Schema) -> None:
    await grammars.check(_asked(schema))


async def test_what_is_known_is_not_tried_again(grammars: GrammarCheck) -> None:
    known, new = _asked(pattern("^known$")), _asked(pattern("^new$"))
    await grammars.check(known)
    slow = asyncio.create_task(grammars.check(_asked(minutes_of_work(1))))
    await asyncio.sleep(0)
    behind = asyncio.create_task(grammars.check(new))
    await grammars.check(known)
    assert not slow.done()
    assert not behind.done()
    await asyncio.gather(slow, behind, return_exceptions=True)


async def test_too_many_at_once(grammars: GrammarCheck) -> None:
    many = [_asked(pattern(f"^many-{at}$")) for at in range(MAX_WAITING + 2)]
    outcomes = await asyncio.gather(*map(grammars.check, many), return_exceptions=True)
    (refused,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(refused, GracefulHTTPError)
    assert refused.http_status == 503
    await asyncio.gather(*map(grammars.check, many))


@pytest.fixture
async def broken(config: Any) -> AsyncIterator[GrammarCheck]:
    check = GrammarCheck(config)
    await check.check(_asked(pattern("^before$")))
    keeper = psutil.Process(check.lanes[0].process.pid)
    for process in (keeper, *keeper.children()):
        process.kill()
    check.lanes[0].process.join()
    yield check
    check.close()


async def test_its_process_is_started_again(broken: GrammarCheck) -> None:
    with pytest.raises(GracefulHTTPError, match="cannot be compiled now"):
        await broken.check(_asked(pattern("^after$")))
    await broken.check(_asked(pattern("^after$")))


# vLLM still says it, and xgrammar no longer wants to hear it.
@pytest.mark.filterwarnings("ignore:max_rollback_tokens:DeprecationWarning")
def test_the_engine_compiles_once_what_trials_allow(config: Any) -> None:
    manager = StructuredOutputManager(config)
    bound_grammars(manager)
    kind, text = get_structured_output_key(_asked(pattern("^[a-z]{1,200}$")))
    compiled = [manager.executor.submit(manager.backend.compile_grammar, kind, text) for _ in range(3)]
    grammars = [one.result() for one in compiled]
    assert len({id(one.ctx) for one in grammars}) == 1
    assert len({id(one.matcher) for one in grammars}) == 3
    manager.clear_backend()
