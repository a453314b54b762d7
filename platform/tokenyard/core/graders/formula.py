"""What several graders come to together: a formula over their names. It is parsed, never run as code."""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping

MAX_FORMULA = 1000  # characters
MAX_NODES = 200
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SIGNS: Mapping[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {"min": min, "max": max, "abs": abs}
_MAX_ARGUMENTS = 16
_OFFERED = "numbers, names of graders, + - * /, min(), max() and abs()"


class FormulaProblem(ValueError):
    """What is wrong with a formula, as a sentence."""


class Formula:
    """A parsed formula."""

    def __init__(self, source: str, names: Collection[str]) -> None:
        """Raise `FormulaProblem` where `source` is none over these names."""
        if len(source) > MAX_FORMULA:
            raise FormulaProblem(f"is longer than {MAX_FORMULA} characters")
        try:
            self._root = ast.parse(source.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise FormulaProblem(f"is not a formula of {_OFFERED}") from None
        nodes = [node for node in ast.walk(self._root) if isinstance(node, ast.expr)]
        if len(nodes) > MAX_NODES:
            raise FormulaProblem(f"has more than {MAX_NODES} parts")
        _check(self._root, names)

    def value(self, rewards: Mapping[str, float]) -> float:
        """Return what it comes to; `ArithmeticError` where that is no finite number."""
        found = _value(self._root, rewards)
        if not math.isfinite(found):
            raise OverflowError("the formula comes to no finite number")
        return found


def _check(node: ast.expr, names: Collection[str]) -> None:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            _finite(number)
        case ast.Name(id=name):
            if name not in names:
                raise FormulaProblem(f"names {name!r}, which is none of its graders")
        case ast.UnaryOp(op=sign, operand=inner) if type(sign) in _SIGNS:
            _check(inner, names)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            _check(left, names)
            _check(right, names)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in _FUNCTIONS:
            wanted = range(1, 2) if function == "abs" else range(2, _MAX_ARGUMENTS + 1)
            if len(arguments) not in wanted:
                raise FormulaProblem(f"gives {function}() {len(arguments)} arguments")
            for argument in arguments:
                _check(argument, names)
        case _:
            raise FormulaProblem(f"has {ast.unparse(node)[:40]!r}; there are {_OFFERED}")


def _finite(number: float) -> None:
    try:
        finite = math.isfinite(number)
    except OverflowError:  # a whole number that no float is
        finite = False
    if not finite:
        raise FormulaProblem("has a number that is too large")


def _value(node: ast.expr, rewards: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return rewards[name]
        case ast.UnaryOp(op=sign, operand=inner):
            return _SIGNS[type(sign)](_value(inner, rewards))
        case ast.BinOp(left=left, op=operation, right=right):
            return _OPERATORS[type(operation)](_value(left, rewards), _value(right, rewards))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return float(_FUNCTIONS[function](*(_value(one, rewards) for one in arguments)))
    raise AssertionError("the formula was checked")
