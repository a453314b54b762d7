"""Counting tokens: beside the loop and not on it, fairly between organizations, and not where bytes tell enough."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer

from support.fakes.gateway_ports import BASE
from support.fakes.tokenizers import save_byte_tokenizer, save_word_tokenizer
from tokenyard.core.errors import RateLimited
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import BaseModel
from tokenyard.gateway.counting.counting_queue import MAX_ASKED
from tokenyard.gateway.counting.token_counter import TokenCounter
from tokenyard.gateway.endpoints.body import Prompt

ONE, OTHER = OrganizationId("org_one"), OrganizationId("org_other")
LONGEST = len(" alphabetical")
LONG = [Prompt([" alphabet cal" * 80_000], 0)]  # a megabyte


@pytest.fixture
def model(tmp_path: Path) -> BaseModel:
    save_byte_tokenizer(tmp_path)
    return msgspec.structs.replace(BASE, path=str(tmp_path))


async def test_the_loop_turns_while_tokens_are_counted(model: BaseModel) -> None:
    counter = TokenCounter()
    await counter.count(ONE, [Prompt(["a"], 0)], model)  # the file is read
    counting = asyncio.create_task(counter.count(ONE, LONG, model))
    turns = 0
    while not counting.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20, "whoever holds the interpreter's lock lets it turn once or twice"
    assert (await counting or [0])[0] > 80_000


async def test_the_texts_and_what_comes_on_top(model: BaseModel) -> None:
    prompts = [Prompt([" alphabetical", " alphabetical alphabetical", ""], 5), Prompt([], 7)]
    assert await TokenCounter().count(ONE, prompts, model) == [8, 7]
    nowhere = msgspec.structs.replace(model, path="/nowhere")
    assert await TokenCounter().count(ONE, prompts, nowhere) is None


async def test_an_organization_that_asks_for_much_waits_for_itself_alone(model: BaseModel) -> None:
    counter = TokenCounter()
    flood = [asyncio.create_task(counter.count(ONE, LONG, model)) for _ in range(MAX_ASKED + 5)]
    await asyncio.sleep(0)
    refused = [one for one in flood if one.done()]
    assert len(refused) == 5
    for one in refused:
        with pytest.raises(RateLimited) as refusal:
            await one
        assert int(refusal.value.headers["retry-after"]) > 0
    assert await counter.count(OTHER, [Prompt(["a b"], 0)], model) == [3]
    assert sum(not one.done() for one in flood) > MAX_ASKED - 3, "the other one did not stand in this line"
    for one in flood:
        one.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_who_leaves_does_not_let_the_next_one_in_before_its_thread_has_ended(model: BaseModel) -> None:
    counter = TokenCounter()
    for _ in range(MAX_ASKED):
        leaving = asyncio.create_task(counter.count(ONE, LONG, model))
        await asyncio.sleep(0)
        leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert counter.under_way == 1
    assert await counter.count(ONE, [Prompt(["a b"], 0)], model) == [3]
    assert counter.under_way == 0


@pytest.mark.parametrize("text", ["", "a", " alphabetical" * 10, "\u00e9" * 50, "<|im_start|>" * 3])
async def test_no_text_has_fewer_tokens_than_its_bytes_tell(model: BaseModel, text: str) -> None:
    counter = TokenCounter()
    (fewest,) = await counter.fewest([Prompt([text], 3)], model) or [0]
    assert fewest == 3 + -(-len(text.encode()) // LONGEST)
    (exact,) = await counter.count(ONE, [Prompt([text], 3)], model) or [0]
    assert fewest <= exact


async def test_where_a_tokenizer_drops_text_bytes_tell_nothing(tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path)
    model = msgspec.structs.replace(BASE, path=str(tmp_path))
    assert await TokenCounter().fewest([Prompt(["x" * 1000], 3)], model) == [3]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]}},
    ],
    ids=["folds", "removes", "removes inside"],
)
async def test_or_may_drop_it(model: BaseModel, change: dict[str, object]) -> None:
    file = Path(model.path) / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert Tokenizer.from_file(str(file))
    assert await TokenCounter().fewest([Prompt(["x" * 1000], 3)], model) == [3]


@pytest.mark.parametrize("text", ["a", "x" * 1000])
async def test_a_file_that_cuts_or_fills_up_every_text_is_counted_as_the_engine_reads_it(
    model: BaseModel, text: str
) -> None:
    (right,) = await TokenCounter().count(ONE, [Prompt([text], 0)], model) or [0]
    file = Path(model.path) / "tokenizer.json"
    cuts = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    fills = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None}
    filler = {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"truncation": cuts, "padding": fills | filler}))
    assert await TokenCounter().count(ONE, [Prompt([text], 0)], model) == [right]


async def test_composing_takes_a_third_of_the_bytes_at_best(model: BaseModel) -> None:
    file = Path(model.path) / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": {"type": "NFC"}}))
    text = "\u1112\u1161\u11ab" * 13  # Hangul in its parts: nine bytes that become three
    assert await TokenCounter().fewest([Prompt([text], 0)], model) == [3]
