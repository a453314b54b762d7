"""Formulas over rewards: arithmetic, and nothing else."""

import pytest

from tokenyard.core.graders.formula import Formula, FormulaProblem

REWARDS = {"a": 0.5, "b": 2.0}


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a", 0.5),
        ("  -a + +b", 1.5),
        ("1 - a / 2 * b", 0.5),
        ("min(a, b, 1) + max(a, b) - abs(a - b)", 1.0),
        ("(a + b) * 1e1", 25.0),
    ],
)
def test_it_is_computed(formula: str, value: float) -> None:
    assert Formula(formula, REWARDS).value(REWARDS) == value


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("", "is not a formula"),
        ("a +", "is not a formula"),
        ("a; b", "is not a formula"),
        ("c", "names 'c', which is none of its graders"),
        ("a ** 9", "there are numbers"),
        ("a if b else 1", "there are numbers"),
        ("a.real", "there are numbers"),
        ("__import__('os')", "there are numbers"),
        ("min(*a)", "min() 1 arguments"),
        ("min(a, *b)", "there are numbers"),
        ("max(a, key=b)", "there are numbers"),
        ("abs(a, b)", "abs() 2 arguments"),
        ("True", "there are numbers"),
        ("'a'", "there are numbers"),
        ("1e999", "too large"),
        ("9" * 900, "too large"),
        ("a" * 1001, "longer than 1000"),
        ("+".join(["a"] * 150), "more than 200 parts"),
        ("(" * 400 + "a" + ")" * 400, "is not a formula"),
    ],
)
def test_anything_else_is_refused(formula: str, said: str) -> None:
    with pytest.raises(FormulaProblem, match=r"^(is|has|names|gives)") as problem:
        Formula(formula, REWARDS)
    assert said in str(problem.value)


@pytest.mark.parametrize("formula", ["1 / (a - 0.5)", "b * 1e308 * b"])
def test_what_is_no_number_is_an_arithmetic_error(formula: str) -> None:
    with pytest.raises(ArithmeticError):
        Formula(formula, REWARDS).value(REWARDS)
