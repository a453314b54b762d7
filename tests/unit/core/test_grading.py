"""What answers are worth."""

from typing import Any

import pytest

from tokenyard.core.evaluation.questions import Answered, NotAnswered
from tokenyard.core.graders.grading import MAX_COMPARED, Grade, GradingError, grade, model_questions
from tokenyard.core.graders.shapes import parsed_grader
from tokenyard.core.graders.templates import MAX_TEXT, GradedAnswer, Template
from unit.core.test_grader_shapes import CHECK, LABEL, MULTI, NEAR, SCORE

ITEM: dict[str, object] = {"answer": "Blue", "sky": {"colour": "light blue"}, "counts": [1, None]}


def graded(grader: dict[str, Any], text: str, item: Any = ITEM, **answers: Any) -> Grade:
    return grade(parsed_grader(grader), GradedAnswer(item, text), answers)


@pytest.mark.parametrize(
    ("operation", "text", "worth"),
    [
        ("eq", "Blue", 1),
        ("eq", "blue", 0),
        ("ne", "blue", 1),
        ("ne", "Blue", 0),
        ("like", "It is Blue.", 1),
        ("like", "It is blue.", 0),
        ("ilike", "IT IS BLUE.", 1),
        ("ilike", "Green", 0),
    ],
)
def test_strings_are_checked(operation: str, text: str, worth: float) -> None:
    assert graded({**CHECK, "operation": operation}, text) == Grade(reward=worth)


@pytest.mark.parametrize(
    ("metric", "worth"),
    [
        ("fuzzy_match", 2 * 8 / 17),
        ("rouge_1", 2 * 1 / 3),
        ("rouge_2", 0),
        ("rouge_l", 2 * 1 / 3),
    ],
)
def test_texts_are_compared(metric: str, worth: float) -> None:
    near = {**NEAR, "evaluation_metric": metric, "input": "{{ sample.output_text }}", "reference": "blue sky"}
    assert graded(near, "blue skys").reward != graded(near, "blue sky").reward == 1
    short = {**near, "reference": "blue"}
    assert graded(short, "blue sky").reward == pytest.approx(2 * 4 / 12 if metric == "fuzzy_match" else worth)


def test_bleu_of_the_same_is_one() -> None:
    bleu = {**NEAR, "evaluation_metric": "bleu", "input": "{{ sample.output_text }}", "reference": "one two three four"}
    assert graded(bleu, "one two three four").reward == 1
    assert 0 < graded(bleu, "one two three five").reward < 1


def test_what_is_referred_to_is_filled_in() -> None:
    text = "{{ item.counts }}{{item.counts.0}} {{ item.sky.colour }} {{ sample.output_json.a.b }}"
    check = {**CHECK, "input": text, "reference": '[1,null]1 light blue {"c":true}'}
    assert graded(check, '{"a": {"b": {"c": true}}}') == Grade(reward=1)


@pytest.mark.parametrize(
    ("template", "text", "error"),
    [
        ("{{ item.colour }}", "Blue", GradingError.INVALID_VARIABLE),
        ("{{ item.counts.7 }}", "Blue", GradingError.INVALID_VARIABLE),
        ("{{ item.answer.length }}", "Blue", GradingError.INVALID_VARIABLE),
        ("{{ sample.output_json.colour }}", "Blue", GradingError.SAMPLE_PARSE),
        ("{{ sample.output_json.colour }}", '{"color": 1}', GradingError.SAMPLE_PARSE),
    ],
)
def test_what_is_not_there_is_worth_nothing(template: str, text: str, error: GradingError) -> None:
    found = graded({**CHECK, "operation": "ne", "input": template}, text)
    assert found == Grade(reward=0, errors=frozenset({error}))


def test_of_a_very_long_answer_the_beginning_is_graded() -> None:
    found = graded({**CHECK, "reference": "x" * 9 + "{{ item.answer }}", "operation": "like"}, "x" * MAX_TEXT + "xBlue")
    assert found == Grade(reward=0, errors=frozenset({GradingError.TRUNCATED}))
    similar = {**NEAR, "input": "{{ sample.output_text }}", "reference": "x" * MAX_COMPARED}
    cut = graded(similar, "x" * MAX_COMPARED + "y")
    assert cut == Grade(reward=1, errors=frozenset({GradingError.TRUNCATED}))


def test_a_text_is_filled_in_no_further_than_it_is_read() -> None:
    """Whole, it would have 200 MB."""

    class Counted(dict[str, object]):
        read = 0

        def __getitem__(self, name: str) -> object:
            Counted.read += 1
            return super().__getitem__(name)

    item = Counted(a="x" * 60_000)
    assert Template("{{item.a}}" * 3000).filled(GradedAnswer(item, "")) == ("x" * MAX_TEXT, True)
    assert Counted.read == 2
    asked = {**SCORE, "input": [{"role": "user", "content": ["{{ item.answer }}"] * 16}] * 32}
    [question] = model_questions(parsed_grader(asked), GradedAnswer({"answer": "x" * 60_000}, "")).values()
    messages: Any = question.question.asked["messages"]
    assert sum(message["content"].count("x") for message in messages) == MAX_TEXT


def test_json_of_any_depth_is_graded() -> None:
    """Python reads a little deeper than it writes."""
    check = {**CHECK, "input": "{{ sample.output_json }}"}
    assert all(graded(check, "[" * depth + "]" * depth).reward == 0 for depth in range(800, 1001))


def test_a_model_is_asked_for_a_score_by_a_schema() -> None:
    answer = GradedAnswer(ITEM, "Blue")
    [(name, (model, question, tokens))] = model_questions(parsed_grader(SCORE), answer).items()
    assert (name, model, tokens) == ("judge", "small-model", 20)
    assert question.asked["messages"] == [{"role": "user", "content": "How good is Blue?"}]
    assert question.asked["temperature"] == 0.5
    assert "seed" not in question.asked
    held: Any = question.asked["response_format"]
    assert held["json_schema"]["schema"]["properties"] == {"result": {"type": "number"}}


@pytest.mark.parametrize(
    ("said", "worth", "errors"),
    [
        (Answered('{"result": 4}'), 4, set()),
        (Answered('{"result": 6}'), 1, {GradingError.MODEL_PARSE}),
        (Answered('{"result": true}'), 1, {GradingError.MODEL_PARSE}),
        (Answered("four", "length"), 1, {GradingError.MODEL_PARSE}),
        (NotAnswered("No such model."), 1, {GradingError.MODEL_SERVER}),
    ],
)
def test_a_models_score_counts_where_it_is_one(said: Any, worth: float, errors: set[GradingError]) -> None:
    found = graded(SCORE, "Blue", judge=said)
    assert found.reward == worth
    assert found.errors == errors
    assert found.details == ("No such model." if isinstance(said, NotAnswered) else None)


@pytest.mark.parametrize(("label", "worth"), [("yes", 1), ("no", 0), ("maybe", 0)])
def test_a_label_passes_or_does_not(label: str, worth: float) -> None:
    found = graded(LABEL, "Blue", label=Answered(f'{{"label": "{label}"}}'))
    assert found.reward == worth
    assert (GradingError.MODEL_PARSE in found.errors) == (label == "maybe")


def test_several_come_to_one() -> None:
    said = {"judge": Answered('{"result": 2}'), "label": Answered('{"label": "yes"}')}
    found = graded(MULTI, '{"colours": ["light blue"]}', **said)
    assert found.rewards == {"exact": 0, "near": 1, "judge": 2, "label": 1}
    assert (found.reward, found.errors) == (0.5 * 0 + 1 / 2 - 2, frozenset())


def test_a_formula_without_a_number_is_worth_nothing() -> None:
    found = graded({**MULTI, "graders": {"exact": CHECK}, "calculate_output": "1 / exact"}, "Green")
    assert found.reward == 0
    assert found.errors == {GradingError.OTHER}
