"""For any bytes the check of weights refuses or lets through, in whatever pieces they come, and never breaks."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.finetune.adapter_files import LAYERS, adapter_weights
from tokenyard.core.adapters import AdapterNotAllowed, AdapterRules, WeightsCheck

RULES = AdapterRules(max_rank=8)
GOOD = adapter_weights()


def outcome(pieces: list[bytes]) -> bytes | str:
    check, written = WeightsCheck(RULES), b""
    try:
        for piece in pieces:
            written += check.feed(piece)
        check.finish()
    except AdapterNotAllowed as refused:
        return refused.code
    return written


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 1 << 20), max_size=12))
def test_pieces_do_not_matter(places: list[int]) -> None:
    assert outcome(cut(GOOD, places)) == outcome([GOOD]) != ""


@settings(deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=9), st.lists(st.integers(0, 1 << 20), max_size=4))
def test_what_a_changed_file_makes_is_a_refusal_or_a_file_that_passes_again(
    place: int, change: bytes, places: list[int]
) -> None:
    changed = GOOD[:place] + change + GOOD[place + len(change) :]
    made = outcome(cut(changed, places))
    assert made == outcome([changed]) or (isinstance(made, str) and isinstance(outcome([changed]), str))
    if isinstance(made, bytes):
        assert outcome([made]) == made, "what is kept is canonical"


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_it(data: bytes) -> None:
    assert isinstance(outcome([data]), str)


@pytest.mark.parametrize("layers", range(1, LAYERS + 1))
def test_the_rank_is_the_one_of_the_weights(layers: int) -> None:
    check = WeightsCheck(RULES)
    check.feed(adapter_weights(rank=3, layers=layers))
    assert check.finish() == 3
