"""A fusion network as the source of one PyTorch module that needs nothing but torch.

Its parameters have the names of :class:`~bmnas_core.networks.FusionNetwork`'s, so that it reads the
same weights. Users' texts stand in it as quoted strings and in comments, never as code.
"""

import json
import keyword
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import isqrt

from torch import nn

from . import ops
from .class_source import Import, class_source
from .errors import SourceError, check_type, shortened
from .genotype import OPERATIONS, WRITERS, CellGenotype, Genotype, cell_name, step_name
from .networks import FusionNetwork
from .runtime import seeded
from .signature import Signature
from .tasks.task import Task, as_task
from .train import TrainConfig, fusion_network

#: Columns of a line, and the comment that lets one be longer, for a user's long name in it.
WIDTH, NOQA = 100, "  # noqa: E501"

#: Names in ``forward`` that no feature may take.
OWN_NAMES = (
    r"with_gaps|[sc]\d+|self|features|cells?|steps|fused|scales?|means?|torch|pool.*|feature_\d+"
)

#: Of more classes the source gives the number alone.
MAX_CLASS_NAMES = 12


def network_source(net: nn.Module) -> str:
    """Source of a network that :func:`~bmnas_core.train.train` gave: one PyTorch module.

    Of a network with backbones it is the source of its fusion, whose weights
    ``save_network(net.fusion, path)`` writes. Raises SourceError for another network, and for an
    operation whose class cannot stand alone.
    """
    net = check_type(getattr(net, "fusion", net), FusionNetwork, "net", SourceError)
    if net.signature is None:
        raise SourceError("net", "a network without signature", "one that bm.train gave")
    poolings = sorted({net.signature.pooling_of(name) for name in net.reshape.channels})
    functions = {how: f"pool_{how}" if len(poolings) > 1 else "pool" for how in poolings}
    classes, imports = _classes(net)
    parts = [
        f"{_docstring(net)}\n\n{_imports(imports)}",
        *(_filled(POOL[how], net, name=name) for how, name in functions.items()),
        *([_filled(GAPS, net)] if net.gaps else []),
        *classes,
        "\n".join(_network(net, functions)),
    ]
    return "\n".join(map(_with_noqa, "\n\n\n".join(parts).split("\n"))) + "\n"


@WRITERS.register("source")
def genotype_source(genotype: Genotype, task: Task, config: TrainConfig | None = None) -> str:
    """Source of a genotype's network before training, see :meth:`Genotype.to_source`."""
    config = TrainConfig.from_optional(config).with_defaults(as_task(task).config)
    with seeded(0, "source"):
        net = fusion_network(genotype, task, config)
    net.signature = Signature.from_task(task)
    return network_source(net)


# --- what every network has


POOL = {
    "grid": '''
def {name}(feature):
    """(n, C), (n, C, T) or (n, C, H, W) → (n, C, {L}): the largest values, in a grid of {grid}."""
    if feature.dim() == 4:
        return nn.functional.adaptive_max_pool2d(feature, {grid}).flatten(2)
    return nn.functional.adaptive_max_pool1d(feature.reshape(*feature.shape[:2], -1), {L})
''',
    "time": '''
def {name}(feature):
    """(n, C), (n, C, T) or (n, C, T, …) → (n, C, {L}): the largest values, in {L} moments of T."""
    moments = feature.flatten(3).amax(3) if feature.dim() > 3 else feature
    return nn.functional.adaptive_max_pool1d(moments.reshape(*moments.shape[:2], -1), {L})
''',
}

RESHAPE = """
# ReLU(BatchNorm(W concat(inputs))) of a feature, of all steps of a Cell{more}.
class Reshape(nn.Sequential):
    def __init__(self, channels, outputs={C}):
        super().__init__()
        self.conv, self.bn = nn.Conv1d(channels, outputs, 1), nn.BatchNorm1d(outputs)
        self.activation, self.dropout = nn.ReLU(), nn.Dropout({dropout})

    def forward(self, *inputs):
        return super().forward(torch.cat(inputs, dim=1))
"""


GAPS = '''
def with_gaps(layer, feature):
    """layer(feature), and zeros for samples that lack the feature, which is NaN there."""
    there = ~feature[:, 0, 0].isnan()
    reshaped = feature.new_zeros(len(feature), {C}, {L})
    reshaped[there] = layer(feature[there])
    return reshaped
'''


def _filled(template: str, net: FusionNetwork, **more: str) -> str:
    """A class, function or call of this file with the network's numbers in place of names."""
    rows = max(r for r in range(1, isqrt(net.L) + 1) if net.L % r == 0)
    sizes = {"C": net.C, "C2": 2 * net.C, "L": net.L, "dropout": net.dropout}
    sizes["known"] = ", 0 where y is" if net.gaps else ""
    sizes["there"] = " * y.flatten(1).any(1)[:, None, None]" if net.gaps else ""
    return template.format(**sizes, grid=(rows, net.L // rows), **more).strip()


# --- the kit's operations


#: Operations without weights, as expressions of two inputs.
EXPRESSIONS = {ops.Zero: "torch.zeros_like({0})", ops.Sum: "{0} + {1}"}

#: The others: how each is made, and its class, which does what that of ops.py does.
CLASSES = {
    ops.Attention: (
        "Attention()",
        """
# Positions of x attend to positions of y: LayerNorm(y softmax(xᵀy / √{C})ᵀ){known}.
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout, self.ln = nn.Dropout(0.1), nn.LayerNorm([{C}, {L}])

    def forward(self, x, y):
        weights = (x.mT @ y / {C}**0.5).softmax(dim=-1)
        return self.ln(self.dropout(y @ weights.mT)){there}
""",
    ),
    ops.LinearGLU: (
        "LinearGLU()",
        """
# GLU(BatchNorm(W concat(x, y))): {C} channels of values ⊙ sigmoid of {C} channels of gates.
class LinearGLU(Reshape):
    def __init__(self):
        super().__init__({C2}, outputs={C2})
        self.activation = nn.GLU(dim=1)
""",
    ),
    ops.ConcatFC: ("Reshape({C2})", ""),
}


def _classes(net: FusionNetwork) -> tuple[list[str], set[Import]]:
    """Source of all classes that the network needs, and what they import."""
    taken = {"FusionNetwork", "Reshape", "torch", "nn"}
    taken |= {"pool", "pool_grid", "pool_time", "with_gaps"}
    imports = {name: Import("torch", own, name) for own, name in (("", "torch"), ("nn", "nn"))}
    used = {OPERATIONS[s.op]: s.op for cell in net.genotype.cells for s in cell.steps}
    more = ", or of x and y: ConcatFC" if ops.ConcatFC in used else ""
    texts = [_filled(RESHAPE, net, more=more)]
    for cls in CLASSES:
        if cls in used and CLASSES[cls][1]:
            texts.append(_filled(CLASSES[cls][1], net))
            taken.add(cls.__name__)
    for cls, op in used.items():
        if cls in EXPRESSIONS or cls in CLASSES:
            continue
        text, needed = class_source(cls, f"operation {op!r}")
        names = {cls.__name__, *(own.name for own in needed if imports.get(own.name) != own)}
        for name in names & (taken | imports.keys()):
            found = f"{name}, a name that the source has already"
            raise SourceError(f"operation {op!r}", found, "another name in its class")
        texts.append(text)
        taken.add(cls.__name__)
        imports |= {own.name: own for own in needed}
    return texts, set(imports.values())


def _call(op: str, net: FusionNetwork) -> str | None:
    """How an operation is made in ``__init__``; None for one that is an expression."""
    cls = OPERATIONS[op]
    if cls in EXPRESSIONS:
        return None
    call = CLASSES[cls][0] if cls in CLASSES else cls.__name__ + "({C}, {L}, {dropout})"
    return _filled(call, net)


# --- the network itself


def _network(net: FusionNetwork, functions: dict[str, str]) -> Iterator[str]:
    """Lines of the class FusionNetwork; ``functions`` are names of those that pool."""
    yield "class FusionNetwork(nn.Module):"
    yield "    def __init__(self):"
    yield from (f"        {line}" for line in _init(net))
    yield ""
    yield "    def forward(self, features):"
    yield from (f"        {line}" for line in _forward(net, functions))


def _init(net: FusionNetwork) -> Iterator[str]:
    """Lines that make the layers, under the names of :class:`FusionNetwork`'s."""
    cells, C, L = net.genotype.cells, net.C, net.L
    yield "super().__init__()"
    layers = "self.reshape = nn.ModuleDict(dict(layers=nn.ModuleList(map(Reshape, [{}]))))"
    yield from _statement(layers, "channels", map(str, net.reshape.channels.values()))
    yield f"self.cells = nn.ModuleList(nn.Module() for _ in range({len(cells)}))"
    for i, cell in enumerate(cells):
        calls = [_call(step.op, net) or "nn.Identity()" for step in cell.steps]
        while calls and calls[-1] == "nn.Identity()":
            calls.pop()
        if calls:
            yield from _statement(f"self.cells[{i}].steps = nn.ModuleList([{{}}])", "steps", calls)
        reduce = {"reduce": f"Reshape({len(cell.steps) * C})"} if len(cell.steps) > 1 else {}
        parts = {**reduce, "ln": f"nn.LayerNorm([{C}, {L}])"}
        yield from _module_dict(f"self.cells[{i}].output", parts)
    N = len(cells)
    linear = f"nn.Linear({N * C * L}, {net.classes})"
    parts = {"ln": f"nn.LayerNorm([{N * C}, {L}])", "linear": linear}
    yield from _module_dict("self.classifier", parts)


def _forward(net: FusionNetwork, functions: dict[str, str]) -> Iterator[str]:
    """Lines from features to outputs: reshape layers, Cells, classifier."""
    nodes = _variables(net.reshape.channels)
    for i, (name, variable) in enumerate(nodes.items()):
        pool = functions[net.signature.pooling_of(name)]
        layer, pooled = f"self.reshape.layers[{i}]", f"{pool}(features[{_literal(name)}])"
        made = f"with_gaps({layer}, {pooled})" if net.gaps else f"{layer}({pooled})"
        yield f"{variable} = {made}"
    for i, cell in enumerate(net.genotype.cells):
        yield from _cell(i, cell, nodes)
        nodes[cell_name(i)] = cell_name(i).lower()
    cells = [cell_name(i).lower() for i in range(len(net.genotype.cells))]
    fused = "fused = self.classifier.ln(torch.cat([{}], dim=1)).relu()"
    yield "# Classifier"
    yield from _statement(fused, "cells", cells)
    outputs = "self.classifier.linear(fused.flatten(1))"
    if not net.signature.scale:
        yield f"return {outputs}"
        return
    for name in ("scale", "mean"):
        numbers = map(repr, getattr(net.signature, name))
        yield from _statement(f"{name} = fused.new_tensor([{{}}])", f"{name}s", numbers)
    yield f"return {outputs} * scale + mean"


def _cell(i: int, cell: CellGenotype, nodes: dict[str, str]) -> Iterator[str]:
    """Lines of one Cell; ``nodes`` are the variables of the features and the Cells before it."""
    what = " and ".join(shortened(_printable(name), 30) for name in cell.inputs)
    yield f"# Cell {i + 1}: {what}" + (f", {cell.motif}" if cell.motif else "")
    x, y = (nodes[name] for name in cell.inputs)
    steps, lines, y_used = [step_name(j).lower() for j in range(len(cell.steps))], [], False
    for j, (variable, step) in enumerate(zip(steps, cell.steps, strict=True)):
        a, b = (name.lower() for name in step.inputs)
        made = EXPRESSIONS.get(OPERATIONS[step.op], f"cell.steps[{j}]({{0}}, {{1}})").format(a, b)
        label = shortened(_printable(OPERATIONS[step.op].label), 30)
        lines.append(f"{variable} = {made}  # {label}")
        y_used = y_used or bool(re.search(r"\by\b", made))
    yield f"cell, x, {'y' if y_used else '_'} = self.cells[{i}], {x}, {y}"
    yield from lines
    reduced = "cell.output.reduce({})" if len(steps) > 1 else "{}"
    output = f"{cell_name(i).lower()} = cell.output.ln({reduced} + x)"
    yield from _statement(output, "steps", steps)


def _docstring(net: FusionNetwork) -> str:
    signature, n = net.signature, net.classes
    title = f"Fusion network (BM-NAS) for {shortened(_printable(signature.task), 50)}"
    features = [
        f"{shortened(_literal(name), 60)}: (n, {channels}, …)"
        for name, channels in net.reshape.channels.items()
    ]
    names = [shortened(_printable(name), 60) for name in signature.class_names]
    if not 0 < len(names) <= MAX_CLASS_NAMES:
        names = [f"{n} {'labels' if signature.labels == 'multi-label' else signature.labels}"]
    outputs = {
        "classes": f"logits (n, {n}), whose softmax gives the probabilities of",
        "multi-label": f"logits (n, {n}), whose sigmoids are the probabilities of",
        "values": f"(n, {n}), predictions of",
    }
    names[0] = f"Returns {outputs[signature.labels]} {names[0]}"
    names[-1] += "."
    cells = len(net.genotype.cells)
    lines = [
        f"{title}: {cells} Cell{'s' * (cells > 1)}.",
        "",
        "Reads a dict of features of n samples, as backbones give them or pooled:",
        *(f"    {row}" for row in _rows(features)),
        *_rows(names),
        "",
        "    import safetensors.torch",
        "    net = FusionNetwork()",
        '    net.load_state_dict(safetensors.torch.load_file("net.safetensors"))',
        "",
    ]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return f'"""{text}"""' + NOQA * any(_width(line) > WIDTH for line in text.splitlines())


# --- lines and texts


def _statement(template: str, name: str, items: Iterable[str]) -> list[str]:
    """A statement of a list of items; if it is too long, the list before it, as ``name``."""
    items = list(items)
    short = template.format(", ".join(items))
    if len(short) + 8 <= WIDTH:
        return [short]
    return [f"{name} = [", *(f"    {item}," for item in items), "]", template.format(f"*{name}")]


def _module_dict(target: str, parts: dict[str, str]) -> list[str]:
    """A statement that makes a ModuleDict of parts; if it is too long, the last part before it."""

    def statement(parts: dict[str, str]) -> str:
        items = ", ".join(f"{name}={made}" for name, made in parts.items())
        return f"{target} = nn.ModuleDict(dict({items}))"

    if len(statement(parts)) + 8 <= WIDTH:
        return [statement(parts)]
    last = list(parts)[-1]
    return [f"{last} = {parts[last]}", statement(parts | {last: last})]


def _rows(items: list[str]) -> list[str]:
    """Items with commas between them, in lines that are not too long."""
    rows = items[:1]
    for item in items[1:]:
        if len(rows[-1]) + len(item) + 8 > WIDTH:
            rows[-1] += ","
            rows.append(item)
        else:
            rows[-1] += f", {item}"
    return rows


def _imports(imports: set[Import]) -> str:
    """Import statements in ruff's order: Python's, then torch's."""
    lines, names = set(), defaultdict(list)
    for module, own, name in imports:
        if own == name:
            names[module].append(name)
        else:
            renamed = "" if name == module else f" as {name}"
            lines.add((f"from {module} import {own}" if own else f"import {module}") + renamed)
    for module, own in names.items():
        own.sort(key=lambda name: (not name.isupper(), name.islower(), name))
        lines.add(f"from {module} import {', '.join(own)}")
    of_torch = {line for line in lines if re.match(r"\w+ torch\b", line)}
    groups = filter(None, (lines - of_torch, of_torch))
    groups = (sorted(group, key=lambda line: (line[0] == "f", line)) for group in groups)
    return "\n\n".join(map("\n".join, groups))


def _variables(names: Iterable[str]) -> dict[str, str]:
    """Feature name → the variable that holds it: image_1, or feature_1 if that is no usual one."""
    found: dict[str, str] = {}
    for i, name in enumerate(names, 1):
        word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        usual = re.fullmatch(r"[a-z][a-z0-9_]{2,24}", word) and not keyword.iskeyword(word)
        if not usual or re.fullmatch(OWN_NAMES, word):
            word = f"feature_{i}"
        while word in found.values():
            word += "_"
        found[name] = word
    return found


def _literal(text: str) -> str:
    """A text as a Python literal, with the quotes that ruff prefers."""
    return repr(text) if text.count('"') > text.count("'") else json.dumps(text, ensure_ascii=False)


def _printable(text: str) -> str:
    """A text in one line, for a comment or docstring."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _width(line: str) -> int:
    """Columns that a line takes at most: many letters of the world take two."""
    return sum(1 if character.isascii() else 2 for character in line)


def _with_noqa(line: str) -> str:
    """A line of code that a feature's long name makes too long, with a note that it may be so."""
    return line + NOQA * ("features[" in line and _width(line) > WIDTH)
