"""What a grader may be, and how what is wrong with one is said."""

from typing import Any

import pytest

from tokenyard.core.graders.shapes import GraderProblem, MultiGrader, item_paths, parsed_grader

CHECK = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
}
NEAR = {
    "type": "text_similarity",
    "name": "near",
    "evaluation_metric": "rouge_l",
    "input": "{{sample.output_json.colours.0}}",
    "reference": "{{item.sky.colour}}",
}
SCORE = {
    "type": "score_model",
    "name": "judge",
    "model": "small-model",
    "input": [{"role": "user", "content": "How good is {{ sample.output_text }}?"}],
    "range": [1, 5],
    "sampling_params": {"temperature": 0.5, "max_completions_tokens": 20},
}
LABEL = {
    "type": "label_model",
    "name": "label",
    "model": "small-model",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Is {{ item.answer }} right?"}]}],
    "labels": ["yes", "no"],
    "passing_labels": ["yes"],
}
MULTI = {
    "type": "multi",
    "name": "both",
    "graders": {"exact": CHECK, "near": NEAR, "judge": SCORE, "label": LABEL},
    "calculate_output": "0.5 * exact + max(near, label) / 2 - judge",
}


@pytest.mark.parametrize("grader", [CHECK, NEAR, SCORE, LABEL, MULTI], ids=lambda grader: str(grader["type"]))
def test_openais_graders_are_taken(grader: dict[str, Any]) -> None:
    assert parsed_grader(grader).name == grader["name"]


def test_one_grader_in_a_multi_goes_by_its_own_name_as_openais_schema_has_it() -> None:
    found = parsed_grader({**MULTI, "graders": CHECK, "calculate_output": "2 * exact"})
    assert isinstance(found, MultiGrader)
    assert set(found.graders) == {"exact"}


def test_what_it_needs_of_a_row_is_known() -> None:
    assert item_paths(parsed_grader(MULTI)) == {("answer",), ("sky", "colour")}


WRONG: list[tuple[Any, str, str]] = [
    ("eq", "", "Expected `object`"),
    ({**CHECK, "type": "magic"}, "type", "Invalid value 'magic'"),
    ({**CHECK, "operation": "contains"}, "operation", "Invalid enum value 'contains'"),
    ({**CHECK, "weight": 1}, "", "unknown field `weight`"),
    ({**CHECK, "name": ""}, "name", "1 to 128"),
    ({**CHECK, "name": "a\x00"}, "name", "none of them is NUL"),
    ({**CHECK, "reference": 5}, "reference", "Expected `str`"),
    ({**CHECK, "reference": "\ud800"}, "", "half a surrogate pair"),
    ({**MULTI, "graders": {"exact": {**CHECK, "input": "\udfff"}}}, "", "half a surrogate pair"),
    ({**CHECK, "input": "{{ sample.output_text"}, "input", "'{{' without '}}'"),
    ({**CHECK, "input": "{" * 32_768}, "input", "'{{' without '}}'"),  # to look for each end to the end took 20 s
    ({**CHECK, "input": "{{ sample.choices }}"}, "input", "refers to 'sample.choices'"),
    ({**CHECK, "input": "{{ item }}"}, "input", "refers to 'item'"),
    ({**CHECK, "input": "{{ item.a() }}"}, "input", "is no path"),
    ({**CHECK, "input": "{{ }}"}, "input", "is no path"),
    ({**CHECK, "input": "x" * 32_769}, "input", "longer than 32768"),
    ({**NEAR, "evaluation_metric": "cosine"}, "evaluation_metric", "'cosine' is not available"),
    ({**NEAR, "evaluation_metric": "meteor"}, "evaluation_metric", "'meteor' is not available"),
    ({**SCORE, "range": [1, 1]}, "range", "to a greater one"),
    ({**SCORE, "range": [0, 1, 2]}, "range", "length 2"),
    ({**SCORE, "sampling_params": {"temperature": 3}}, "sampling_params.temperature", "from 0 to 2"),
    ({**SCORE, "sampling_params": {"reasoning_effort": "low"}}, "sampling_params.reasoning_effort", "cannot be set"),
    ({**SCORE, "input": []}, "input", "1 to 32 messages"),
    (
        {**SCORE, "input": [{"role": "user", "content": {"type": "input_image", "text": "x"}}]},
        "input[0].content.type",
        "Invalid enum",
    ),
    ({**LABEL, "labels": []}, "labels", "1 to 64 labels"),
    ({**LABEL, "passing_labels": ["maybe"]}, "passing_labels", "one of the labels"),
    ({"type": "python", "name": "code", "source": "def grade(sample, item): ..."}, "type", "no code of tenants runs"),
    ({**MULTI, "graders": {"code": {"type": "python"}}}, "graders.code.type", "no code of tenants runs"),
    ({**MULTI, "graders": {}}, "graders", "1 to 16 graders"),
    ({**MULTI, "graders": {f"g{n}": CHECK for n in range(17)}}, "graders", "1 to 16 graders"),
    ({**MULTI, "graders": {"not a name": CHECK}}, "graders", "a formula can hold"),
    ({**MULTI, "graders": {"deep": MULTI}}, "graders[...].type", "Invalid value 'multi'"),
    ({**MULTI, "graders": {"exact": {**CHECK, "input": "{{"}}}, "graders.exact.input", "without '}}'"),
    ({**MULTI, "calculate_output": "other"}, "calculate_output", "names 'other'"),
]


@pytest.mark.parametrize(("grader", "param", "said"), WRONG, ids=lambda value: ascii(value)[:60])
def test_what_is_wrong_is_named(grader: Any, param: str, said: str) -> None:
    with pytest.raises(GraderProblem) as problem:
        parsed_grader(grader)
    assert problem.value.param == param
    assert said in problem.value.message
