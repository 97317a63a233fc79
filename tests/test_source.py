"""A network's source stands alone, says what the network does, and holds no user's text as code."""

import ast
import json
import linecache
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_example
from safetensors.torch import save_file
from strategies import HOSTILE, genotypes
from tiny import tiny_task
from torch import Tensor, nn

import bmnas_core as bm
from bmnas_core.baselines.architectures import random_genotype
from bmnas_core.genotype import OPERATIONS
from bmnas_core.ops import Dropout

ELSEWHERE = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import load_file

found = {}
for path in sorted(Path().glob("net_*.py")):
    names = {"__name__": path.stem}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), names)
    net = names["FusionNetwork"]()
    net.load_state_dict(load_file(path.with_suffix(".safetensors")))
    net.eval()
    given = load_file(path.with_suffix(".inputs"))
    wanted, exact, pooled, unpooled = given.pop("outputs"), given.pop("exact"), {}, {}
    for key, values in given.items():
        kind, name = key.split(" ")
        (pooled if kind == "pooled" else unpooled)[name] = values
    largest = max(1.0, float(wanted.abs().max()))
    with torch.no_grad():
        errors = [float((net(x) - wanted).abs().max()) / largest for x in (pooled, unpooled)]
        doubles = net.double()({name: x.double() for name, x in pooled.items()})
    found[path.stem] = [*errors, 1e6 * float((doubles - exact).abs().max()) / largest]
assert "bmnas_core" not in sys.modules
print(json.dumps(found))
"""

RUFF = ["--isolated", "--line-length", "100"]


def ruff(command: str, folder, *options: str) -> str:
    """What ruff has to say of a folder; nothing if all is well."""
    arguments = [sys.executable, "-m", "ruff", command, *RUFF, *options, str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def network_of(source: str) -> nn.Module:
    """The network that a source defines."""
    names = {"__name__": "source"}
    exec(compile(source, "source", "exec"), names)
    return names["FusionNetwork"]()


@pytest.fixture(scope="module")
def folder(shared_folder):
    """Source, weights, inputs and outputs of fifty random networks."""
    return shared_folder("fifty_networks", save_fifty)


def save_fifty(folder):
    for seed in range(50):
        example = random_example(seed)
        path = folder / f"net_{seed:02}"
        path.with_suffix(".py").write_text(bm.network_source(example.net), encoding="utf-8")
        bm.save_network(example.net, path.with_suffix(".safetensors"))
        inputs = {f"pooled {name}": x for name, x in example.pooled.items()}
        inputs |= {f"unpooled {name}": x for name, x in example.features.items()}
        inputs = {name: x.clone() for name, x in inputs.items()}
        inputs |= {"outputs": example.values(), "exact": example.values(torch.float64)}
        save_file(inputs, path.with_suffix(".inputs"))


@pytest.mark.slow
def test_fifty_random_networks_give_the_same_where_the_kit_is_not_imported(folder):
    """Within 1e-6 of the largest output, and within 1e-12 in double precision."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) == 50
    worst = max(errors, key=lambda name: max(errors[name]))
    assert max(errors[worst]) <= 1e-6, (worst, errors[worst])


@pytest.mark.slow
def test_the_random_networks_have_every_operation_pooling_and_kind_of_label(folder):
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for part in ("zeros_like", "x + y", "Attention()", "LinearGLU()", "# ConcatFC", "pool_time"):
        assert part in text
    for part in ("softmax gives", "sigmoids are", "* scale + mean", "adaptive_max_pool2d"):
        assert part in text
    assert "with_gaps(self" in text and "any(1)[:, None, None]" in text


def test_source_is_clean_and_formatted_by_ruff(folder):
    assert not ruff("check", folder, "--select", "E,F,I,B,UP,SIM")
    assert not ruff("format", folder, "--diff")


def test_source_can_be_trained_on_as_the_network_is(monkeypatch):
    """Dropout is where it is in the network: here it scales all values by its rate."""
    for kind in (torch.nn.Dropout, Dropout):
        monkeypatch.setattr(kind, "forward", lambda self, x: x * (1 + self.p) if self.p else x)
    for seed in range(8):
        example = random_example(seed)
        example.net.signature = replace(example.net.signature, labels="classes", mean=(), scale=())
        own = network_of(bm.network_source(example.net))
        own.load_state_dict(example.net.state_dict())
        features, outputs = {name: x.double() for name, x in example.pooled.items()}, []
        for net in (example.net.double(), own.double()):
            outputs.append(net.train()(features))
        torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("rule", ["voice", "sum"])
def test_source_of_the_usual_genotypes_of_digits_has_40_to_80_lines(rule):
    task, random = bm.load_task("digits", rule=rule), torch.Generator().manual_seed(0)
    lines = []
    for _ in range(60):
        genotype = random_genotype(task.features, 2, 2, random)
        lines.append(genotype.to_source(task).count("\n"))
    assert min(lines) >= 40 and max(lines) <= 80


def test_to_source_says_what_the_trained_network_is():
    task = tiny_task()
    genotype = bm.Genotype(task.features, [cell(("Image_1", "Audio_2"), "sum", "attention")])
    config = bm.TrainConfig(C=12, L=2, epochs=1)
    net, _ = bm.train(genotype, task, config, device="cpu", progress=False)
    source = genotype.to_source(task, config)
    assert source == bm.network_source(net) != genotype.to_source(task)
    assert "tiny (rule same)" in source and "nn.LayerNorm([12, 2])" in source
    with pytest.raises(bm.TrainError, match="genotype: found features .*; allowed: those of task"):
        bm.Genotype(("A", "B"), [cell(("A", "B"), "sum")]).to_source(task)
    with pytest.raises(bm.ConfigError, match="config: found int; allowed: a TrainConfig"):
        genotype.to_source(task, 3)
    with pytest.raises(bm.TaskError, match="task: found str; allowed: a Task"):
        genotype.to_source("digits")


def test_source_of_a_network_with_backbones_is_that_of_its_fusion():
    task = tiny_task()
    genotype = bm.Genotype(task.features, [cell(("Image_1", "Audio_2"), "sum")])
    config = bm.TrainConfig(epochs=1, finetune=True)
    net, _ = bm.train(genotype, task, config, device="cpu", progress=False)
    assert bm.network_source(net) == bm.network_source(net.fusion)


def test_what_is_no_trained_network_has_no_source():
    net = random_example(0).net
    net.signature = None
    with pytest.raises(bm.SourceError, match="net: found a network without signature; allowed"):
        bm.network_source(net)
    with pytest.raises(bm.SourceError, match="net: found Linear; allowed: a FusionNetwork"):
        bm.network_source(nn.Linear(2, 2))


# --- hostile texts

TEXTS = [
    *HOSTILE,
    '"""',
    'a"""; import os\n#',
    "'''",
    "\\",
    '\\"""',
    "\\N{x}",
    "\n import os",
    "{C}",
]
TEXTS += ["coding: utf-7", "\u202e", "\ud800", "x" * 300, '"' * 9]
TEXTS += ["{0}", "%s", "fmt: off"]


def shape_of(source: str) -> list[str]:
    """A module's syntax with every string and every name left out; each name as its first place."""
    tree, places = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
        if isinstance(node, ast.Name):
            node.id = str(places.setdefault(node.id, len(places)))
    return ast.dump(tree)


def plain(example_names: tuple[str, ...], genotype: bm.Genotype) -> bm.Genotype:
    """The same genotype with plain feature names."""
    new = {name: f"Feature_{i}" for i, name in enumerate(example_names)}
    cells = [replace(c, inputs=[new.get(name, name) for name in c.inputs]) for c in genotype.cells]
    return bm.Genotype(tuple(new.values()), cells)


def written(genotype: bm.Genotype, texts: list[str]) -> str:
    """Source of a network of three classes, whose task and classes have these names."""
    features = genotype.features
    net = bm.FusionNetwork(genotype, dict.fromkeys(features, 3), 3, C=4, L=2)
    net.signature = bm.Signature(
        task=texts[0],
        features={"A": features[:1], "B": features[1:]},
        pooling={"A": "grid", "B": "time"},
        class_names=tuple(texts[1:]),
    )
    return bm.network_source(net)


@settings(max_examples=40)
@given(genotypes(), st.lists(st.sampled_from(TEXTS) | st.text(), min_size=4, max_size=4))
def test_no_name_becomes_code(genotype, texts):
    source = written(genotype, texts)
    expected = written(plain(genotype.features, genotype), ["t", "a", "b", "c"])
    assert shape_of(source) == shape_of(expected)
    read = [n.slice.value for n in ast.walk(ast.parse(source)) if is_feature(n)]
    assert read == list(genotype.used_features)


def is_feature(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "features"
    )


def test_source_with_hostile_names_is_clean_and_runs(tmp_path):
    for k, name in enumerate(HOSTILE):
        genotype = bm.Genotype((name, f"{name} too"), [cell((name, f"{name} too"), "concat_fc")])
        source = written(genotype, [TEXTS[-k], *TEXTS[k : k + 3]])
        (tmp_path / f"net_{k}.py").write_text(source, encoding="utf-8")
        features = {name: torch.randn(2, 3) for name in genotype.features}
        assert network_of(source)(features).shape == (2, 3)
    assert not ruff("check", tmp_path, "--select", "E,F,I,B,UP,SIM")


def test_variables_of_features_are_different_and_nothing_elses():
    names = (
        "s1",
        "c1",
        "Image 1",
        "image_1",
        "x",
        "features",
        "feature_2",
        "日本",
        "class",
        "pool",
    )
    cells = [cell(pair, "sum") for pair in zip(names[::2], names[1::2], strict=True)]
    source = written(bm.Genotype(names, cells), ["t"])
    assert network_of(source)({name: torch.randn(2, 3) for name in names}).shape == (2, 3)
    assert 'image_1 = self.reshape.layers[2](pool_time(features["Image 1"]))' in source
    assert 'feature_4 = self.reshape.layers[3](pool_time(features["image_1"]))' not in source


def cell(inputs, *operations) -> bm.CellGenotype:
    return bm.CellGenotype(inputs, [bm.StepGenotype(op, ("X", "Y")) for op in operations])


# --- operations of users


class Shifted(nn.Module):
    """Needs other modules' names."""

    def __init__(self, C: int, L: int, dropout: float):
        super().__init__()
        self.linear = nn.Linear(L, L)
        self.shift = math.sqrt(C)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.gelu(self.linear(x)) + torch.cat([y], dim=1) - self.shift


FACTOR = 2


class NeedsFactor(nn.Module):
    def __init__(self, C, L, dropout):
        super().__init__()

    def forward(self, x, y):
        return x * y * FACTOR


class Reshape(nn.Module):
    def __init__(self, C, L, dropout):
        super().__init__()

    def forward(self, x, y):
        return x


IN_A_NOTEBOOK = """
import torch

@decorate
class Mean(torch.nn.Module):
    def __init__(self, C, L, dropout):
        super().__init__()

    def forward(self, x, y):
        return (x + y) / 2
"""


def own_network(name: str) -> bm.FusionNetwork:
    genotype = bm.Genotype(("A", "B"), [cell(("A", "B"), "attention", name)])
    net = bm.FusionNetwork(genotype, {"A": 3, "B": 3}, 3, C=4, L=2, dropout=0.1).eval()
    both = {"A": ("A",), "B": ("B",)}
    net.signature = bm.Signature(task="t", features=both, pooling={"A": "grid", "B": "grid"})
    return net


def check_own(name: str, tmp_path) -> str:
    net = own_network(name)
    source = bm.network_source(net)
    own = network_of(source).eval()
    own.load_state_dict(net.state_dict())
    features = {"A": torch.randn(5, 3, 2), "B": torch.randn(5, 3, 1)}
    torch.testing.assert_close(own(features), net(features), rtol=1e-6, atol=1e-6)
    (tmp_path / "own.py").write_text(source, encoding="utf-8")
    assert not ruff("check", tmp_path, "--select", "E,F,I,B,UP,SIM")
    return source


def test_a_registered_operation_comes_with_its_class_and_imports(tmp_path):
    with OPERATIONS.restored():
        bm.register_operation("shifted", label="a\nb = 1 #")(Shifted)
        source = check_own("shifted", tmp_path)
    assert "import math\n\nimport torch\nimport torch.nn.functional as F\n" in source
    assert "from torch import Tensor, nn" in source and "Shifted(4, 2, 0.1)" in source


def test_a_class_within_a_function_comes_along_too(product_operation, tmp_path):
    assert "class Product(nn.Module):" in check_own(product_operation, tmp_path)


def test_a_class_of_a_notebook_comes_along_too(tmp_path):
    name = "<ipython-input-1>"
    linecache.cache[name] = (len(IN_A_NOTEBOOK), None, IN_A_NOTEBOOK.splitlines(True), name)
    with OPERATIONS.restored():
        names = {"decorate": bm.register_operation("mean"), "__name__": "__main__"}
        exec(compile(IN_A_NOTEBOOK, name, "exec"), names)
        source = check_own("mean", tmp_path)
    assert "decorate" not in source and "class Mean(torch.nn.Module):" in source


@pytest.mark.parametrize(
    "cls, message",
    [
        (
            NeedsFactor,
            "operation 'mine': found 'FACTOR' in class NeedsFactor, which is defined outside of "
            "it; allowed: what Python and torch have",
        ),
        (
            Reshape,
            "operation 'mine': found Reshape, a name that the source has already; allowed: another "
            "name in its class",
        ),
        (
            type("Made", (Reshape,), {}),
            "operation 'mine': found class Made without source; allowed: a class that is written "
            "in a file or a notebook",
        ),
    ],
)
def test_a_class_that_cannot_stand_alone_is_refused(cls, message):
    with OPERATIONS.restored():
        bm.register_operation("mine")(cls)
        with pytest.raises(bm.SourceError) as error:
            bm.network_source(own_network("mine"))
    assert str(error.value) == message
