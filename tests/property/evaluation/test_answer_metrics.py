"""Figures of answers: their bounds and symmetries, and values that the reference implementations give."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenyard.core.evaluation.answer_metrics import answer_metrics, bleu, is_json, rouge_l, word_f1

_texts = st.text(max_size=60)
_rows = st.lists(st.tuples(_texts, _texts), min_size=1, max_size=6)


@given(_rows)
def test_every_figure_is_between_0_and_1(rows: list[tuple[str, str]]) -> None:
    found = answer_metrics(*zip(*rows, strict=True))
    assert found.rows == len(rows)
    for value in (found.exact_match, found.f1, found.bleu, found.rouge_l, found.json_validity or 0.0):
        assert 0 <= value <= 1


@given(st.lists(_texts, min_size=1, max_size=6))
def test_what_was_expected_is_worth_1(texts: list[str]) -> None:
    found = answer_metrics(texts, texts)
    assert (found.exact_match, found.f1, found.rouge_l) == (1, 1, 1)


@given(st.lists(st.text("abc ", min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=6))
def test_bleu_of_what_was_expected_is_1(texts: list[str]) -> None:
    assert bleu(texts, texts) == pytest.approx(1)


@given(_texts, _texts)
def test_f1_and_rouge_do_not_ask_which_is_which(one: str, other: str) -> None:
    assert word_f1(one, other) == word_f1(other, one)
    assert rouge_l(one, other) == pytest.approx(rouge_l(other, one))
    assert rouge_l(one, other) <= word_f1(one, other) + 1e-9  # a common subsequence is common words in order


@given(_rows, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[str, str]], random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = (answer_metrics(*zip(*each, strict=True)) for each in (rows, shuffled))
    assert (one.exact_match, one.json_validity) == (other.exact_match, other.json_validity)
    for name in ("f1", "rouge_l", "bleu"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | _texts, st.lists, max_leaves=5))
def test_json_is_what_the_json_module_writes(value: object) -> None:
    assert is_json(json.dumps(value))
    assert not is_json(json.dumps(value) + " or so")


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [  # of `rouge_score.rouge_scorer.RougeScorer(["rougeL"])`
        ("the cat sat on the mat", "a cat was sitting on the mat", 0.6153846153846153),
        ("police killed the gunman", "the gunman police killed", 0.5),
        ("Yes, it is.", "yes it is", 1.0),
        ("never", "always", 0.0),
    ],
)
def test_rouge_l_is_what_the_reference_implementation_gives(answer: str, expected: str, value: float) -> None:
    assert rouge_l(answer, expected) == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("Paris, France", "paris", 2 / 3),
        ("a a b", "a b b", 2 / 3),
        ("東京です", "東京", 2 / 3),
        ("", "", 1.0),
        ("", "x", 0.0),
    ],
)
def test_f1_counts_shared_words(answer: str, expected: str, value: float) -> None:
    assert word_f1(answer, expected) == pytest.approx(value)


def test_short_answers_have_a_bleu() -> None:
    assert bleu(["positive"], ["positive"]) == pytest.approx(1)
    assert bleu(["negative"], ["positive"]) < 0.01


def test_json_counts_only_where_it_was_expected() -> None:
    found = answer_metrics(['{"a": 1}', "{a: 1}", "true"], ['{"a": 2}', '{"a": 1}', "yes"])
    assert found.json_validity == 0.5
    assert answer_metrics(["true"], ["yes"]).json_validity is None


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no answers"):
        answer_metrics([], [])
    with pytest.raises(ValueError, match="longer"):
        answer_metrics(["a"], ["a", "b"])
