"""The relaxation "paper" against the numbers that the published code computed."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bmnas_core.architecture import ArchitectureWeights
from bmnas_core.genotype import (
    DEFAULT_OPERATIONS,
    CellGenotype,
    Genotype,
    StepGenotype,
    step_predecessors,
)
from bmnas_core.networks import FusionNetwork, Hypernet, count_parameters
from bmnas_core.ops import Dropout
from bmnas_core.selection import derive

FOLDER = Path(__file__).parent / "golden"
META = json.loads((FOLDER / "meta.json").read_text())


@pytest.fixture(scope="module", params=META)
def golden(request):
    name = request.param
    return {
        "name": name,
        "meta": META[name],
        "hypernet": load_file(FOLDER / f"hypernet_{name}.safetensors"),
        "found": load_file(FOLDER / f"found_{name}.safetensors"),
    }


def ours(name: str) -> str:
    """This kit's name of a stored weight: ``cell0.step1.sum.x`` → ``cells.0.steps.1.sum.x``."""
    parts = name.split(".")
    if parts[0] == "ln":
        return "classifier." + name
    if not parts[0].startswith("cell"):
        return name
    cell = ["cells", parts[0][4:]]
    if parts[1].startswith("step"):
        return ".".join([*cell, "steps", parts[1][4:], *parts[2:]])
    if parts[1] in ("reduce", "ln"):
        return ".".join([*cell, "output", *parts[1:]])
    return ".".join([*cell, *parts[1:]])


def joined(tensors):
    """The tensors by our names, those of a hypernet's projections joined as it has them."""
    parts = {}
    for name, value in sorted(tensors.items(), key=lambda item: "concat_fc" in item[0]):
        new = re.sub(r"(steps\.\d+)\.(linear_glu|concat_fc)\.", r"\1.", ours(name))
        new = re.sub(r"(steps\.\d+)\.(attention)\.", r"\1.operations.\2.", new)
        parts.setdefault(new, []).append(value)
    return {name: torch.cat(own) if len(own) > 1 else own[0] for name, own in parts.items()}


def load(network, tensors, rename=joined):
    """Load the stored weights; they must cover every weight of the fusion part, and no other."""
    skipped = ("inputs", "output", "cotangent", "grad.")
    weights = rename({k: v for k, v in tensors.items() if not k.startswith(skipped)})
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    outside = ("reshape.", "classifier.linear.")
    assert [
        m for m in missing if not m.startswith(outside) and "num_batches_tracked" not in m
    ] == []
    network.eval()


def genotype_of(meta, features):
    """The stored genotype, whose inputs are positions, as a Genotype."""
    released = meta["genotype_released_rule"]
    cells = []
    for i, steps in enumerate(released["steps"]):
        inner = step_predecessors(len(steps["ops"]))
        cells.append(
            CellGenotype(
                tuple(features[k] for k in released["edges"][2 * i : 2 * i + 2]),
                tuple(
                    StepGenotype(op, tuple(inner[k] for k in steps["inputs"][2 * j : 2 * j + 2]))
                    for j, op in enumerate(steps["ops"])
                ),
            )
        )
    return Genotype(features, tuple(cells))


def sizes(meta):
    return {"C": meta["C"], "L": meta["L"]}


def build_hypernet(golden):
    meta = golden["meta"]
    features = {f"F_{i}": 3 for i in range(meta["features"])}
    net = Hypernet(features, 2, **sizes(meta), N=meta["cells"], M=meta["steps"])
    load(net, golden["hypernet"])
    return net


def cells_parameters(network):
    """The fusion part alone: Cells, α and the last LayerNorm."""
    return (
        count_parameters(network)
        - count_parameters(network.reshape)
        - count_parameters(network.classifier.linear)
    )


def test_hypernet_output_and_architecture_gradients_equal_the_published_code(golden):
    net, tensors = build_hypernet(golden), golden["hypernet"]
    output = net.classifier.fuse(net.mix(tensors["inputs"].permute(1, 3, 0, 2)))
    torch.testing.assert_close(output, tensors["output"], rtol=1e-5, atol=1e-5)
    (output * tensors["cotangent"]).sum().backward()
    torch.testing.assert_close(net.alpha.grad, tensors["grad.alpha"], rtol=1e-5, atol=1e-5)
    for i, cell in enumerate(net.cells):
        for name in ("beta", "gamma"):
            grad = getattr(cell, name).grad
            torch.testing.assert_close(grad, tensors[f"grad.cell{i}.{name}"], rtol=1e-5, atol=1e-5)


def fixed_dropout(x):
    """The published code's dropout of 0.1 of rows with a fixed mask in place of a random one."""
    sample, position, channel = (torch.arange(size) for size in x.shape)
    kept = (sample[:, None, None] + 5 * position[:, None] + 3 * channel) % 10 != 0
    return x * kept / 0.9


@pytest.fixture
def in_training(golden, monkeypatch):
    """The hypernet in training mode, after one pass and backward; beside it the published one."""
    monkeypatch.setattr(Dropout, "forward", lambda self, x: fixed_dropout(x))
    stored = load_file(FOLDER / f"hypernet_{golden['name']}_training.safetensors")
    net, inputs = build_hypernet(golden), golden["hypernet"]["inputs"].clone()
    output = net.train().classifier.fuse(net.mix(inputs.requires_grad_().permute(1, 3, 0, 2)))
    (output * golden["hypernet"]["cotangent"]).sum().backward()
    found = {"output": output, "grad.inputs": inputs.grad}
    found |= {f"grad.{name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    found |= {f"after.{name}": b for name, b in net.named_buffers() if "running" in name}

    named = {"output": stored["output"]}
    for kind in ("grad.", "after."):
        own = {k.removeprefix(kind): v for k, v in stored.items() if k.startswith(kind)}
        named |= {kind + name: value for name, value in joined(own).items()}
    return found, named


@pytest.mark.parametrize("part", ["output", "grad.", "after."])
def test_in_training_mode_the_hypernet_equals_the_published_code(in_training, part):
    found, stored = (
        {name: tensors[name] for name in tensors if name.startswith(part)}
        for tensors in in_training
    )
    assert set(stored) == {name for name in found if "reshape" not in name}
    for name, value in stored.items():
        message = f"{name}: {{}}".format
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=message)


def test_released_selection_gives_the_genotype_of_the_published_code(golden):
    net = build_hypernet(golden)
    weights = ArchitectureWeights.from_hypernet(net, DEFAULT_OPERATIONS, "paper")
    assert derive(weights, "released") == genotype_of(golden["meta"], weights.features)


def test_fusion_network_output_equals_the_published_code(golden):
    meta, tensors = golden["meta"], golden["found"]
    features = tuple(f"F_{i}" for i in range(meta["features"]))
    genotype = genotype_of(meta, features)
    net = FusionNetwork(genotype, dict.fromkeys(features, 3), 2, **sizes(meta))
    steps = [cell.steps for cell in genotype.cells]

    def rename(name):
        parts = ours(name).split(".")
        if "steps" in parts:
            assert parts[4] == steps[int(parts[1])][int(parts[3])].op
            del parts[4]
        return ".".join(parts)

    load(net, tensors, lambda own: {rename(name): value for name, value in own.items()})
    states = dict(zip(features, tensors["inputs"].mT, strict=True))
    output = net.classifier.fuse(net.mix(states))
    torch.testing.assert_close(output, tensors["output"], rtol=1e-5, atol=1e-5)


def test_parameter_counts_equal_the_published_code(golden):
    meta = golden["meta"]
    hypernet = build_hypernet(golden)
    searched = sum(p.numel() for p in hypernet.architecture_parameters())
    features = tuple(hypernet.reshape.channels)
    genotype = genotype_of(meta, features)
    found = FusionNetwork(genotype, hypernet.reshape.channels, 2, **sizes(meta))
    assert cells_parameters(hypernet) - searched == meta["hypernet_parameters"]
    assert cells_parameters(found) == meta["found_parameters"]
