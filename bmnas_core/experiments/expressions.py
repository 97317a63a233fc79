"""Expressions over the parameters of a run, such as ``rule == "sum" and lr < 0.1``.

They are read as Python's and evaluated here: names, plain values and a few operators, no code.
"""

import ast
import operator
from collections.abc import Mapping

from ..errors import BmnasError, near_miss, quoted

#: The longest expression, in characters.
MAX_LENGTH = 1000
ALLOWED = "names of parameters, values, and, or, not, ==, !=, <, <=, >, >=, in, +, -, *, /, %"
COMPARISONS = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}  # fmt: skip
#: How YAML writes them.
WORDS = {"true": True, "false": False, "null": None}


class ExpressionError(BmnasError):
    """Text that is no expression, or one that has no value for a run."""


class Expression:
    """An expression that is true or false for a run.

    Raises :class:`ExpressionError`, also when it is called, for what is not allowed in it.

    Args:
        known: the names that it may use.
        place: what errors call it.
    """

    def __init__(self, text: str, known: Mapping[str, object], place: str):
        self.text, self.place = text, place
        try:
            self.tree = (
                ast.parse(text.strip(), mode="eval").body if len(text) <= MAX_LENGTH else None
            )
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            self.tree = None
        if self.tree is None:
            raise ExpressionError(place, quoted(text), ALLOWED)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node.id not in known and node.id not in WORDS:
                found = f"no parameter {node.id!r}{near_miss(node.id, known)}"
                raise ExpressionError(place, found, ", ".join(known))

    def __call__(self, values: Mapping[str, object]) -> bool:
        try:
            return _true(self.tree, values)
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            found = f"{quoted(self.text)} with {quoted(values)} ({error})"
            raise ExpressionError(self.place, found, ALLOWED) from None


def _value(node: ast.AST, values: Mapping) -> object:
    """The value of a part of an expression. Raises TypeError for what is not allowed in it."""
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name):
            return values[name] if name in values else WORDS[name]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, values) for part in parts]
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_true(part, values) for part in parts)
        case ast.BoolOp(op=ast.Or(), values=parts):
            return any(_true(part, values) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _true(part, values)
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -_number(part, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return ARITHMETIC[type(op)](_number(left, values), _number(right, values))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in COMPARISONS for op in ops
        ):
            found = [_value(part, values) for part in (left, *others)]
            pairs = zip(ops, found[:-1], found[1:], strict=True)
            return all(COMPARISONS[type(op)](a, b) for op, a, b in pairs)
    raise TypeError(f"{type(node).__name__} is not allowed")


def _true(node: ast.AST, values: Mapping) -> bool:
    value = _value(node, values)
    if not isinstance(value, bool):
        raise TypeError(f"{quoted(value)} is not true or false")
    return value


def _number(node: ast.AST, values: Mapping) -> float:
    value = _value(node, values)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{quoted(value)} is not a number")
    return value
