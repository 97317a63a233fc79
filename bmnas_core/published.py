"""The text of a genotype as the released code (Yin et al. 2022) prints and logs it.

``Genotype(edges=[('skip', 1), ('skip', 3)], steps=[StepGenotype(inner_edges=[('skip', 0),
('skip', 1)], inner_steps=['LinearGLU'], inner_concat=[2])], concat=[8])``: two edges a Cell and two
inner edges a step, numbers of nodes. It is parsed as literals and never evaluated.
"""

import ast
import re
from collections.abc import Iterable
from typing import NamedTuple

from .errors import BmnasError, near_miss, quoted

#: The released code's names of operations, those of its first version included.
OPERATIONS = {
    "Sum": "sum", "ScaleDotAttn": "attention", "LinearGLU": "linear_glu", "ConcatFC": "concat_fc",
    "scale_dot_attn": "attention", "cat_conv_glu": "linear_glu", "cat_conv_relu": "concat_fc",
    "sum": "sum",
}  # fmt: skip

ALLOWED = "a text with one Genotype(edges=…, steps=…, concat=…)"

#: The most Cells of a genotype, and steps of a Cell.
LARGEST = 64
#: The longest text that is read, such as the end of a log.
LONGEST = 1 << 20


class PublishedCell(NamedTuple):
    """One Cell: numbers of the nodes X and Y, and its steps' operations and numbers of inputs."""

    inputs: tuple[int, int]
    steps: list[tuple[str, tuple[int, int]]]


def parse_published(text: str, features: int, error: type[BmnasError]) -> list[PublishedCell]:
    """The Cells of the one genotype in a text. Raises ``error`` for anything else.

    Nodes are numbered: features first, then Cells; in a Cell X, Y, then its steps.
    """
    try:
        return _parse(_find(text, error), features, error)
    except (RecursionError, MemoryError):  # the latter from Python's parser
        raise error("text", "very deep nesting", ALLOWED) from None
    except BmnasError:
        raise
    except ValueError:  # Python refuses to print it
        raise error("text", "a number of thousands of digits", ALLOWED) from None


def _parse(node: ast.expr, features: int, error: type[BmnasError]) -> list[PublishedCell]:
    fields = _fields("genotype", node, "Genotype", ("edges", "steps", "concat"), error)
    steps = _listed("steps", fields["steps"], error)
    if len(steps) > LARGEST:
        raise error("steps", f"{len(steps)} Cells", f"at most {LARGEST}")
    inputs = _edges("edges", fields["edges"], len(steps), features, error)
    cells = []
    for i, (pair, step) in enumerate(zip(inputs, steps, strict=True)):
        place, names = f"steps[{i}]", ("inner_edges", "inner_steps", "inner_concat")
        inner = _fields(place, step, "StepGenotype", names, error)
        listed = _listed(f"{place}.inner_steps", inner["inner_steps"], error)
        if len(listed) > LARGEST:
            raise error(f"{place}.inner_steps", f"{len(listed)} steps", f"at most {LARGEST}")
        operations = [_literal(f"{place}.inner_steps", name, error) for name in listed]
        for name in operations:
            if not isinstance(name, str) or name not in OPERATIONS:
                allowed = f"{', '.join(OPERATIONS)}{near_miss(name, OPERATIONS)}"
                raise error(f"{place}.inner_steps", name, allowed)
        pairs = _edges(f"{place}.inner_edges", inner["inner_edges"], len(operations), 2, error)
        _check_all(f"{place}.inner_concat", inner["inner_concat"], 2, len(operations), error)
        ops = [OPERATIONS[name] for name in operations]
        cells.append(PublishedCell(pair, list(zip(ops, pairs, strict=True))))
    _check_all("concat", fields["concat"], features, len(cells), error)
    return cells


def write_published(cells: Iterable[PublishedCell], features: int, error: type[BmnasError]) -> str:
    """The text of Cells, as the released code would print it.

    Raises ``error`` for an operation that the released code has not.
    """
    cells, names = list(cells), {own: name for name, own in reversed(OPERATIONS.items())}
    edges = [("skip", node) for cell in cells for node in cell.inputs]
    parts = []
    for i, cell in enumerate(cells):
        for j, (op, _) in enumerate(cell.steps):
            if op not in names:
                raise error(f"cells[{i}].steps[{j}].op", op, ", ".join(names))
        inner = [("skip", node) for _, inputs in cell.steps for node in inputs]
        operations = [names[op] for op, _ in cell.steps]
        last = list(range(2, 2 + len(operations)))
        written = f"inner_edges={inner}, inner_steps={operations}, inner_concat={last}"
        parts.append(f"StepGenotype({written})")
    last = list(range(features, features + len(cells)))
    return f"Genotype(edges={edges}, steps=[{', '.join(parts)}], concat={last})"


def _find(text: object, error: type[BmnasError]) -> ast.Call:
    """The one genotype in a text, which may be a log; it may be there several times."""
    if not isinstance(text, str):
        raise error("text", text, ALLOWED)
    if len(text) > LONGEST:
        raise error("text", f"{len(text):,} characters", f"at most {LONGEST:,}")
    opened, inside, found = [], 0, set()
    for match in re.finditer(r"((?<![A-Za-z])Genotype)?\(|\)", text):
        if match[0] != ")":
            opened.append(match.start() if match[1] else None)
            inside += bool(match[1])
        elif opened and (start := opened.pop()) is not None:
            inside -= 1
            if not inside:  # the outermost: one in another would be kept many times
                found.add(text[start : match.end()])
    if len(found) != 1:
        raise error("text", f"{len(found)} different genotypes", ALLOWED)
    try:
        return ast.parse(found.pop(), mode="eval").body
    except (SyntaxError, ValueError) as reason:
        why = getattr(reason, "msg", reason)
        raise error("text", f"no genotype ({why})", ALLOWED) from None


def _fields(
    place: str, node: ast.expr, call: str, names: tuple[str, ...], error: type[BmnasError]
) -> dict[str, ast.expr]:
    """The named arguments of a call, which must be these."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == call
    fields = {word.arg: word.value for word in node.keywords} if named else {}
    if not named or node.args or len(node.keywords) != len(names) or set(fields) != set(names):
        allowed = f"{call}({', '.join(f'{name}=…' for name in names)})"
        raise error(place, ast.unparse(node), allowed)
    return fields


def _listed(place: str, node: ast.expr, error: type[BmnasError]) -> list[ast.expr]:
    if not isinstance(node, (ast.List, ast.Tuple)) or not node.elts:
        raise error(place, ast.unparse(node), "a list of at least one")
    return node.elts


def _literal(place: str, node: ast.expr, error: type[BmnasError]) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        raise error(place, ast.unparse(node), "numbers and texts alone") from None


def _edges(
    place: str, node: ast.expr, nodes: int, before: int, error: type[BmnasError]
) -> list[tuple[int, int]]:
    """Two edges to each of ``nodes``, the first of which has ``before`` nodes before it."""
    edges = _literal(place, node, error)
    if not isinstance(edges, (list, tuple)) or len(edges) != 2 * nodes:
        raise error(place, edges, f"{2 * nodes} edges, two for each of {nodes}")
    numbers = []
    for k, edge in enumerate(edges):
        last = before + k // 2 - 1
        pair = edge if isinstance(edge, (list, tuple)) and len(edge) == 2 else (None, None)
        plain = pair[0] == "skip" and type(pair[1]) is int
        if not plain or not 0 <= pair[1] <= last:
            raise error(f"{place}[{k}]", edge, f"('skip', 0…{last})")
        numbers.append(pair[1])
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_all(place: str, node: ast.expr, first: int, nodes: int, error: type[BmnasError]) -> None:
    """Refuse a concatenation of other nodes than all: a genotype of ours has no others."""
    found, allowed = _literal(place, node, error), list(range(first, first + nodes))
    if list(found) != allowed if isinstance(found, (list, tuple)) else True:
        raise error(place, found, f"{quoted(allowed)}, the outputs of all")
