"""What is learnt of a row, what it counts, and which rows are refused."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from support.finetune.encoding import count_tokens, encode
from tokenyard.core.chat_rows import ChatRow
from tokenyard.finetune.methods.supervised import text_token_bound
from tokenyard_deployments.training.examples import IGNORED, Example, read_rows
from tokenyard_deployments.training.failures import TrainingFailed

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] if loop.last or message['role'] != 'assistant' else '...' }}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


WEATHER = [{"type": "function", "function": {"name": "weather"}}]


def tokenizer(template: str = CHATML) -> Any:
    """A real byte-level tokenizer: one token a byte, and the marks of ChatML."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = template
    return fast


def row(*messages: tuple[str, str] | tuple[str, str, int], **more: Any) -> ChatRow:
    found = [
        {"role": message[0], "content": message[1]} | ({"weight": message[2]} if len(message) > 2 else {})
        for message in messages
    ]
    return msgspec.convert({"messages": found, **more}, ChatRow)


def learnt(example: Example, using: Any) -> str:
    text: str = using.decode([label for label in example.labels if label != IGNORED])
    return text


def test_only_the_assistant_is_learnt_with_its_end_of_turn() -> None:
    using = tokenizer()
    one = encode([row(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))], using, 1000)[0]
    assert learnt(one, using) == "Hello<|im_end|>"
    assert len(one.input_ids) == len(one.labels)


def test_every_assistant_turn_but_those_of_weight_0() -> None:
    using = tokenizer()
    turns: list[tuple[str, str] | tuple[str, str, int]] = [
        ("user", "1"),
        ("assistant", "one", 0),
        ("user", "2"),
        ("assistant", "two", 1),
        ("user", "3"),
    ]
    one = encode([row(*turns, ("assistant", "three"))], using, 1000)[0]
    assert learnt(one, using) == "two<|im_end|>three<|im_end|>"


def test_letters_of_several_bytes() -> None:
    using = tokenizer()
    one = encode([row(("user", "héé"), ("assistant", "naïve 🙂"))], using, 1000)[0]
    assert learnt(one, using) == "naïve 🙂<|im_end|>"


def test_a_long_row_is_cut_and_counts_as_cut() -> None:
    using = tokenizer()
    examples = encode(
        [row(("user", "a" * 50), ("assistant", "b" * 50)), row(("user", "a"), ("assistant", "b"))], using, 30
    )
    assert [len(example.input_ids) for example in examples] == [30, 23]
    assert [example.has_lesson for example in examples] == [False, True]
    assert count_tokens(examples) == 53


def test_the_count_is_within_the_bound_that_was_reserved() -> None:
    using = tokenizer()
    rows = [row(("user", "häöü" * n), ("assistant", "ok" * n)) for n in range(1, 9)]
    bounds = [min(60, text_token_bound(msgspec.to_builtins(one)) + 12 * len(one.messages)) for one in rows]
    for example, bound in zip(encode(rows, using, 60), bounds, strict=True):
        assert count_tokens([example]) <= bound


@pytest.mark.parametrize(
    ("rows", "template", "message"),
    [
        (
            [row(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))],
            FORGETFUL,
            "line 1: this model's",
        ),
        ([row(("user", "a"), ("assistant", "b"), tools=WEATHER)], CHATML, "does not show tools"),
        ([row(("user", "Use weather"), ("assistant", "b"), tools=WEATHER)], CHATML, "does not show tools"),
        ([row(("user", "a"), ("assistant", "b"))], "{{ raise_exception('no') }}", "template cannot show"),
        ([row(("user", "a" * 99), ("assistant", "b"))], CHATML, "first 50 tokens"),
    ],
)
def test_rows_that_cannot_be_learnt(rows: list[ChatRow], template: str, message: str) -> None:
    with pytest.raises(TrainingFailed) as failed:
        encode(rows, tokenizer(template), 50)
    assert failed.value.error.code == "invalid_training_file"
    assert message in failed.value.error.message


def test_a_template_that_changes_earlier_turns_can_still_teach_the_last_one() -> None:
    using = tokenizer(FORGETFUL)
    one = encode([row(("user", "a"), ("assistant", "b", 0), ("user", "c"), ("assistant", "d"))], using, 1000)[0]
    assert learnt(one, using) == "d<|im_end|>"


def test_a_call_is_learnt_with_its_arguments_as_an_object() -> None:
    using = tokenizer(
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content }}"
        "{% for call in message.tool_calls %}{{ call.function.name }}({{ call.function.arguments | tojson }})"
        "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = {"id": "1", "function": {"name": "weather", "arguments": '{"at":"Ürgüp"}'}}
    asked = {"role": "user", "content": "Warm?"}
    one = msgspec.convert({"messages": [asked, {"role": "assistant", "tool_calls": [call]}]}, ChatRow)
    assert learnt(encode([one], using, 1000)[0], using) == 'weather({"at": "Ürgüp"})<|im_end|>'


def test_rows_are_read_with_their_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = row(("user", "a"), ("assistant", "b"))
    file.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n{\n')
    rows = read_rows(f"file://{file}")
    assert next(rows) == good
    with pytest.raises(TrainingFailed, match="line 2"):
        next(rows)
    file.write_text(
        '{"messages": [{"role": "user", "content": "a"}, '
        '{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": 1}]}]}'
    )
    with pytest.raises(TrainingFailed, match=r"line 1: .*tool_calls\[0\].function"):
        next(read_rows(f"file://{file}"))
    with pytest.raises(TrainingFailed, match="does not exist"):
        list(read_rows(f"file://{tmp_path / 'gone'}"))
