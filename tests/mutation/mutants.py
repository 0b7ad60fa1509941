"""The mutants of a module: what cosmic-ray's operators, and two of our own, make of its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword, PythonNode

# Cosmic-ray has 220 operators. Left out: arithmetic that no hand would write, orders of numbers
# that the others imply, and `|`, which here is nearly always a type.
_COMPARISONS = (
    *("Eq_NotEq", "Eq_LtE", "Eq_GtE", "NotEq_Eq", "NotEq_Lt", "NotEq_Gt"),
    *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
    *("Is_IsNot", "IsNot_Is"),
)
_ARITHMETIC = ("Add_Sub", "Sub_Add", "Mul_Add", "FloorDiv_Mul", "BitAnd_BitOr")
_OTHERS = (
    *("AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceUnaryOperator_Delete_Not"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "NumberReplacer", "RemoveDecorator"),
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("ExceptionReplacer", "ZeroIterationForLoop"),
)


class OwnOperator(Operator):
    """What cosmic-ray asks of an operator, and nobody here does."""

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DeleteStatement(OwnOperator):
    """Leaves out a statement of a function: a guard, a write, a call."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type != "simple_stmt" or not _is_in_function(node):
            return
        what = node.children[0]
        if what.type not in {"string", "assert_stmt"} and what.get_code().strip() != "pass":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        first = node.get_first_leaf()
        node.children[0] = Keyword("pass", first.start_pos, prefix=first.prefix)
        return node


class DropArgument(OwnOperator):
    """Leaves out a keyword argument of a call."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        for each in _keyword_arguments(node):
            yield each.start_pos, each.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        dropped = _keyword_arguments(node)[index]
        place = node.children.index(dropped)
        del node.children[place : place + 2]  # with its comma
        return node


def _is_in_function(node: Any) -> bool:
    while node := node.parent:
        if node.type == "funcdef":
            return True
    return False


def _keyword_arguments(node: Any) -> list[Any]:
    if not isinstance(node, PythonNode) or node.type != "arglist":
        return []
    return [n for n in node.children if n.type == "argument" and n.children[1] == "="]


@dataclass(frozen=True)
class Mutant:
    """A changed source: ``before`` has become ``after``, in ``function``, at these ``lines``."""

    source: str
    function: str
    before: str
    after: str
    lines: frozenset[int]

    @property
    def row(self) -> str:
        """How a table in docs/mutation.md names it."""
        cells = (self.function, self.before, self.after or "(nothing)")
        return " | ".join(f"`{cell}`".replace("|", "\\|") for cell in cells)


def mutants_of(source: str) -> Iterator[Mutant]:
    """Make them one after the other; what cannot be compiled is none."""
    tree = ast.parse(source)
    for operator in _operators():
        occurrence = 0
        while (mutated := mutate_code(source, operator, occurrence)) is not None:
            occurrence += 1
            if not _compiles(mutated):
                continue
            mutant = _describe(tree, source, mutated)
            # Frozen classes and slots keep mistakes out of the code; what it does is the same.
            if "@dataclass(" not in mutant.before:
                yield mutant


def _operators() -> Iterator[Operator]:
    names = [f"ReplaceComparisonOperator_{name}" for name in _COMPARISONS]
    names += [f"ReplaceBinaryOperator_{name}" for name in _ARITHMETIC]
    for name in (*names, *_OTHERS):
        yield get_operator(f"core/{name}")()
    yield DeleteStatement()
    yield DropArgument()


def _compiles(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _describe(tree: ast.Module, source: str, mutated: str) -> Mutant:
    old, new = source.splitlines(), mutated.splitlines()
    start = _common(old, new)
    end = min(_common(old[start:][::-1], new[start:][::-1]), len(old) - start - 1)
    before, after = (
        " ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (old, new)
    )
    start += next(
        i for i, line in enumerate(old[start:]) if line
    )  # a decorator goes with its space
    name, lines = _place(tree, start + 1)
    return Mutant(mutated, name, before.strip(), after.strip(), lines)


def _common(some: list[str], others: list[str]) -> int:
    """Return how many lines both begin with."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(some), len(others)))


def _place(tree: ast.Module, line: int) -> tuple[str, frozenset[int]]:
    """Return the dotted name of the function at ``line``, and the lines of the statement there."""
    names: list[str] = []
    lines = frozenset({line})
    body: list[ast.stmt] = tree.body
    while found := next((each for each in body if _first(each) <= line <= _last(each)), None):
        if isinstance(found, ast.FunctionDef | ast.ClassDef):
            names.append(found.name)
        body = [n for n in ast.walk(found) if isinstance(n, ast.stmt) and n is not found]
        inner = [each for each in body if _first(each) <= line <= _last(each)]
        if not inner:
            end = min(
                (_first(each) - 1 for each in body if _first(each) > line), default=_last(found)
            )
            lines = frozenset(range(_first(found), end + 1))
    return ".".join(names) or "(module)", lines


def _first(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(each.lineno for each in decorators)])


def _last(statement: ast.stmt) -> int:
    return statement.end_lineno or statement.lineno
