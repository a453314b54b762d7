"""The dataset check, whatever the chunks and whatever the bytes."""

import itertools
import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.datasets.lines import LineProblem
from tokenyard.finetune.methods.dataset import DatasetReader, DatasetSummary, InvalidDataset

Row = dict[str, list[dict[str, str]]]

TEXT = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and text.encode("utf-8", "ignore"))
TEXT = TEXT.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
ROW = st.tuples(TEXT, TEXT).map(
    lambda pair: {"messages": [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]}
)
LINE = st.one_of(
    ROW.map(lambda row: json.dumps(row).encode()),
    ROW.map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.binary(max_size=30),
    st.just(b""),
)


def _outcome(chunks: list[bytes]) -> DatasetSummary | Sequence[LineProblem]:
    check = DatasetReader()
    for chunk in chunks:
        check.feed(chunk)
    try:
        return check.finish()
    except InvalidDataset as error:
        return error.problems


@given(st.lists(LINE, max_size=20).map(b"\n".join), st.lists(st.integers(0, 2000), max_size=10))
def test_the_answer_does_not_depend_on_the_chunks(data: bytes, cuts: list[int]) -> None:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    chunks = [data[start:end] for start, end in itertools.pairwise(places)]
    assert _outcome(chunks) == _outcome([data])


@given(st.lists(ROW, min_size=1, max_size=10))
def test_the_bound_is_at_least_the_bytes_of_the_text(rows: list[Row]) -> None:
    summary = _outcome([b"\n".join(json.dumps(row).encode() for row in rows)])
    bytes_of_text = sum(len(message["content"].encode()) for row in rows for message in row["messages"])
    assert isinstance(summary, DatasetSummary)
    assert summary.rows == len(rows)
    assert summary.token_bound(template_tokens=0, template_tokens_per_message=0) >= bytes_of_text


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), TEXT, st.sampled_from(["user", "assistant"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["messages", "role", "content", "weight", "tools", "tool_calls"]), inner),
    ),
    max_leaves=15,
)


@given(JSON)
def test_any_json_is_either_a_row_or_a_named_problem(value: object) -> None:
    outcome = _outcome([json.dumps(value).encode()])
    assert isinstance(outcome, DatasetSummary) or [problem.line for problem in outcome] == [1]
