"""A second method beside the first: the file's rows say which one they are for."""

import json

import pytest

from support.finetune.rows import rows
from tokenyard.core.chat_rows import RowProblem
from tokenyard.finetune.methods.dataset import DatasetReader, DatasetSummary, InvalidDataset
from tokenyard.finetune.methods.method import Json, RowSize
from tokenyard.finetune.methods.supervised import Supervised


class Preferences:
    """Learns which of two answers is better."""

    name = "preferences"
    conversations = 2

    def takes(self, row: Json) -> bool:
        return "better" in row

    def check_row(self, row: object) -> RowSize:
        if not isinstance(row, dict) or set(row) != {"better", "worse"}:
            raise RowProblem("must have a better and a worse answer")
        return RowSize(messages=2, text_tokens=sum(len(answer) for answer in row.values()))


PAIR = json.dumps({"better": "four", "worse": "five!"}).encode() + b"\n"


def _read(data: bytes) -> DatasetSummary:
    reader = DatasetReader([Supervised(), Preferences()])
    reader.feed(data)
    return reader.finish()


def test_the_first_row_decides_the_method() -> None:
    chats, pairs = _read(rows(3)), _read(PAIR * 3)
    assert (chats.method, chats.rows, chats.messages) == ("supervised", 3, 6)
    assert (pairs.method, pairs.rows, pairs.messages, pairs.text_tokens) == ("preferences", 3, 6, 27)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (PAIR + rows(1), "line 2: must have a better and a worse answer"),
        (rows(1) + PAIR, "line 2: the row has the unknown field 'better'"),
        (b"{}\n", 'line 1: "messages" must be a list with at least one message'),
    ],
)
def test_rows_of_two_methods_do_not_mix(data: bytes, said: str) -> None:
    with pytest.raises(InvalidDataset) as refused:
        _read(data)
    assert [str(problem) for problem in refused.value.problems] == [said]
