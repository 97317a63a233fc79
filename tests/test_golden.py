"""The published relaxation, to the number: outputs, gradients, genotypes, parameter counts."""

import json

import pytest
import torch
from safetensors.torch import load_file

from bmnas_core.architecture import ArchitectureWeights
from bmnas_core.genotype import CellGenotype, Genotype, StepGenotype
from bmnas_core.networks import FusionNetwork, Hypernet, count_parameters
from bmnas_core.selection import derive

CONFIGURATIONS = ("m1", "m2", "m3")
OPERATIONS = ("sum", "attention", "linear_glu", "concat_fc")


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def golden(request, shared):
    folder = shared / "golden"
    if not folder.is_dir():
        pytest.skip("no ../shared/golden: the reference numbers are not distributed")
    name = request.param
    return {
        "meta": json.loads((folder / "meta.json").read_text())[name],
        "hypernet": load_file(folder / f"hypernet_{name}.safetensors"),
        "found": load_file(folder / f"found_{name}.safetensors"),
    }


def ours(name: str) -> str:
    """Our name of a reference weight: ``cell0.step1.sum.x`` → ``cells.0.steps.1.sum.x``."""
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


def load(network, tensors, rename=ours):
    """Copy the reference weights in and see that every weight of the fusion part is covered."""
    skipped = ("inputs", "output", "cotangent", "grad.")
    weights = {rename(k): v for k, v in tensors.items() if not k.startswith(skipped)}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    outside = ("reshape.", "classifier.linear.")
    assert [
        m for m in missing if not m.startswith(outside) and "num_batches_tracked" not in m
    ] == []
    network.eval()


def genotype_of(meta, features):
    """The reference genotype, positional, as ours."""
    released = meta["genotype_released_rule"]
    cells = []
    for i, steps in enumerate(released["steps"]):
        inner = ["X", "Y", *(f"S{j + 1}" for j in range(len(steps["ops"])))]
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


def test_hypernet_output_and_architecture_gradients_equal_the_reference(golden):
    net, tensors = build_hypernet(golden), golden["hypernet"]
    output = net.classifier.fuse(net.mix(list(tensors["inputs"])))
    torch.testing.assert_close(output, tensors["output"], rtol=1e-5, atol=1e-5)
    (output * tensors["cotangent"]).sum().backward()
    torch.testing.assert_close(net.alpha.grad, tensors["grad.alpha"], rtol=1e-5, atol=1e-5)
    for i, cell in enumerate(net.cells):
        for name in ("beta", "gamma"):
            grad = getattr(cell, name).grad
            torch.testing.assert_close(grad, tensors[f"grad.cell{i}.{name}"], rtol=1e-5, atol=1e-5)


def test_released_rule_derives_the_reference_genotype(golden):
    net = build_hypernet(golden)
    weights = ArchitectureWeights.from_hypernet(net, OPERATIONS, "paper")
    assert derive(weights, "released") == genotype_of(golden["meta"], weights.features)


def test_fusion_network_output_equals_the_reference(golden):
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

    load(net, tensors, rename)
    states = dict(zip(features, tensors["inputs"], strict=True))
    output = net.classifier.fuse(net.mix(states))
    torch.testing.assert_close(output, tensors["output"], rtol=1e-5, atol=1e-5)


def test_parameter_counts_equal_the_reference(golden):
    meta = golden["meta"]
    hypernet = build_hypernet(golden)
    searched = sum(p.numel() for p in hypernet.architecture_parameters())
    features = tuple(hypernet.reshape.channels)
    genotype = genotype_of(meta, features)
    found = FusionNetwork(genotype, hypernet.reshape.channels, 2, **sizes(meta))
    assert cells_parameters(hypernet) - searched == meta["hypernet_parameters"]
    assert cells_parameters(found) == meta["found_parameters"]
