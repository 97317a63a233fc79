"""Trained networks come back from files to the bit, or not at all."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_networks import random_example
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_task
from torch import nn
from typer.testing import CliRunner

import bmnas_core as bm
from bmnas_core.cli.app import app
from bmnas_core.genotype import OPERATIONS
from bmnas_core.network_files import FORMAT
from bmnas_core.tensor_files import read_tensors, write_tensors


def cell(inputs, *operations) -> bm.CellGenotype:
    return bm.CellGenotype(inputs, [bm.StepGenotype(op, ("X", "Y")) for op in operations])


@pytest.fixture(scope="module")
def task() -> bm.Task:
    return tiny_task()


@pytest.fixture(scope="module")
def trained(task) -> dict[str, nn.Module]:
    """A fusion network, and one with backbones."""
    cells = [
        cell(("Image_1", "Audio_2"), "attention", "linear_glu"),
        cell(("C1", "Image_2"), "sum"),
    ]
    genotype, nets = bm.Genotype(task.features, cells), {}
    for kind, finetune in {"fusion": False, "end-to-end": True}.items():
        config = bm.TrainConfig(epochs=1, finetune=finetune)
        nets[kind], _ = bm.train(genotype, task, config, device="cpu", progress=False)
    return nets


@pytest.fixture
def files(trained, tmp_path):
    """Each of these in a file of its own."""
    return {kind: bm.save_network(net, tmp_path / kind) for kind, net in trained.items()}


# --- there and back


@pytest.mark.parametrize("seed", range(12))
def test_a_network_comes_back_to_the_bit(seed, tmp_path):
    example = random_example(seed)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    loaded = bm.load_network(bm.save_network(example.net.train(), tmp_path / "net.safetensors"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not loaded.training and loaded.genotype == example.net.genotype
    assert loaded.signature == example.net.signature and loaded.dropout == example.net.dropout
    with torch.no_grad():
        assert torch.equal(loaded(example.pooled), example.net.eval()(example.pooled))


def test_names_in_the_file_are_those_of_the_state_dict(files, trained):
    for kind, path in files.items():
        with safe_open(path, "pt") as file:
            assert set(file.keys()) == set(trained[kind].state_dict())


def test_a_network_with_backbones_comes_back_with_its_task(files, trained, task):
    inputs = {modality.name: modality.inputs[:9] for modality in task.modalities}
    loaded = bm.load_network(files["end-to-end"], task)
    with torch.no_grad():
        assert torch.equal(loaded(inputs), trained["end-to-end"](inputs))
    assert bm.evaluate(loaded, task) == bm.evaluate(trained["end-to-end"], task)
    own = task.modalities[0].backbone.state_dict().values()
    read = loaded.backbones[0].state_dict().values()
    assert not any(torch.equal(a, b) for a, b in zip(own, read, strict=True))  # they were trained


def test_a_loaded_network_can_be_trained_on_and_saved_again(files, task, tmp_path):
    loaded = bm.load_network(files["fusion"], task)
    more = {"device": "cpu", "progress": False, "start": loaded}
    net, _ = bm.train(loaded.genotype, task, bm.TrainConfig(epochs=1), **more)
    assert net.signature == loaded.signature == bm.Signature.from_task(task)
    assert bm.load_network(bm.save_network(net, tmp_path / "again")).C == net.C


def test_a_network_without_signature_may_be_saved(tmp_path):
    net = bm.FusionNetwork(
        bm.Genotype(("A", "B"), [cell(("A", "B"), "sum")]), {"A": 1, "B": 2}, 2, C=3, L=1
    )
    assert bm.load_network(bm.save_network(net, tmp_path / "net")).signature is None


def test_an_operation_of_ones_own_must_be_registered_when_loading(product_operation, tmp_path):
    genotype = bm.Genotype(("A", "B"), [cell(("A", "B"), product_operation)])
    net = bm.FusionNetwork(genotype, {"A": 1, "B": 2}, 2, C=3, L=1).eval()
    path = bm.save_network(net, tmp_path / "net")
    features = {"A": torch.randn(4, 1, 1), "B": torch.randn(4, 2, 1)}
    assert torch.equal(bm.load_network(path)(features), net(features))
    del OPERATIONS[product_operation]
    with pytest.raises(bm.NetworkError) as error:
        bm.load_network(path)
    allowed = "'zero', 'sum', 'attention', 'linear_glu', 'concat_fc'"
    place = f"{path}: genotype: cells[0].steps[0].op"
    assert str(error.value) == f"{place}: found 'product'; allowed: {allowed}"


class ReadsNumbers(nn.Module):
    """It cannot be built without values, and has a tensor that no state dict holds."""

    def __init__(self, C, L, dropout):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C, 1))
        self.fixed = torch.linspace(0, 1, L)
        self.mean = float(self.fixed.mean())

    def forward(self, x, y):
        return self.weight * x + self.fixed * y - self.mean


def test_an_operation_may_compute_with_numbers_when_it_is_built(tmp_path):
    with OPERATIONS.restored():
        bm.register_operation("reads_numbers")(ReadsNumbers)
        genotype = bm.Genotype(("A", "B"), [cell(("A", "B"), "reads_numbers")])
        net = bm.FusionNetwork(genotype, {"A": 1, "B": 2}, 2, C=3, L=4).eval()
        features = {"A": torch.randn(4, 1, 4), "B": torch.randn(4, 2, 4)}
        loaded = bm.load_network(bm.save_network(net, tmp_path / "net"))
        assert torch.equal(loaded(features), net(features))


# --- what is no network


def rewritten(path, change):
    """The file with another header or other tensors, and checksums that fit."""
    header, tensors = read_tensors(path, FORMAT, bm.NetworkError, "network")
    new = change(header, tensors)
    if isinstance(new, list):
        save_file(tensors, path, {"bmnas": json.dumps(new)})
    else:
        write_tensors(path, tensors, header)
    return path


def setting(place: str, value=None):
    """A change of one place in the header, ``a.b.0``; None removes it."""

    def change(header, tensors):
        *places, last = (int(part) if part.isdigit() else part for part in place.split("."))
        for part in places:
            header = header[part]
        if value is None:
            del header[last]
        else:
            header[last] = value

    return change


def tensor(name: str, function=None):
    """A change of one tensor; None removes it."""

    def change(header, tensors):
        if function is None:
            del tensors[name]
        else:
            tensors[name] = function(tensors.get(name))

    return change


LINEAR, CONV = "classifier.linear.weight", "reshape.layers.0.conv.weight"
ALL_FIELDS = "format, genotype, channels, classes, C, L, dropout, gaps, signature, backbones"
NOT_FINITE = "found NaN, infinity or no values; allowed: finite numbers"
SIZES = "by the sizes in the header"
WRONG = [
    (setting("format", "other/1"), "found format 'other/1'; allowed: 'bmnas-network/2'"),
    (setting("format"), "found format None; allowed: 'bmnas-network/2'"),
    (setting("format", FORMAT[:-1] + "1"), f"found format '{FORMAT[:-1]}1'; allowed: '{FORMAT}'"),
    (lambda h, t: [], "found format []; allowed: 'bmnas-network/2'"),
    (setting("genotype"), "NetworkHeader.genotype: found nothing; allowed: a value"),
    (setting("C"), "NetworkHeader.C: found None; allowed: an integer"),
    (setting("more", 1), f"NetworkHeader: found field 'more'; allowed: {ALL_FIELDS}"),
    (setting("C", "8"), "NetworkHeader.C: found '8'; allowed: an integer"),
    (setting("C", 8.0), "NetworkHeader.C: found 8.0; allowed: an integer"),
    (setting("L", 0), "NetworkHeader.L: found 0; allowed: at least 1"),
    (setting("L", True), "NetworkHeader.L: found True; allowed: an integer"),
    (
        setting("dropout", 1.5),
        "NetworkHeader.dropout: found 1.5; allowed: at least 0.0, at most 1.0",
    ),
    (setting("genotype", []), "NetworkHeader.genotype: found []; allowed: a dict"),
    (setting("genotype.cells", []), "genotype: cells: found []; allowed: at least one Cell"),
    (
        setting("genotype.cells.0.steps.0.op", "mean"),
        "genotype: cells[0].steps[0].op: found 'mean'; allowed: 'zero', 'sum', 'attention', "
        "'linear_glu', 'concat_fc'",
    ),
    (
        setting("genotype.cells.0.steps.1.inputs", ["X", "S9"]),
        "genotype: cells[0].steps[1].inputs[1]: found 'S9'; allowed: 'Y', 'S1'",
    ),
    (
        setting("genotype.cells.0.steps.0.op", "concat_fc"),
        "tensor 'cells.0.steps.0.conv.weight': found nothing; allowed: shape (8, 16, 1) of "
        "torch.float32",
    ),
    (
        setting("channels.Text", 3),
        "channels: found those of ['Image_1', 'Image_2', 'Audio_2', 'Text']; allowed: Image_1, "
        "Image_2, Audio_2",
    ),
    (
        setting("channels.Image_1", 6),
        f"tensor '{CONV}': found shape (8, 5, 1); allowed: (8, 6, 1), {SIZES}",
    ),
    (
        setting("C", 10**9),
        f"tensor '{LINEAR}': found shape (3, 64); allowed: (3, 8000000000), {SIZES}",
    ),
    (
        setting("L", 10**30),
        f"tensor '{LINEAR}': found shape (3, 64); allowed: (3, {16 * 10**30}), {SIZES}",
    ),
    (
        setting("classes", 10**12),
        f"tensor '{LINEAR}': found shape (3, 64); allowed: (1000000000000, 64), {SIZES}",
    ),
    (setting("signature.task"), "Signature.task: found nothing; allowed: a value"),
    (
        setting("signature.labels", "numbers"),
        "Signature.labels: found 'numbers'; allowed: 'classes', 'multi-label', 'values'",
    ),
    (
        setting("signature.pooling.Image", "cube"),
        "Signature.pooling['Image']: found 'cube'; allowed: grid, time",
    ),
    (
        setting("signature.pooling.Image"),
        "Signature.pooling: found modalities ['Audio']; allowed: ['Image', 'Audio']",
    ),
    (
        setting("signature.features.Image", ["Image_1"]),
        "signature.features: found ['Image_1', 'Audio_1', 'Audio_2']; allowed: Image_1, Image_2, "
        "Audio_1, Audio_2",
    ),
    (
        setting("signature.features.Image", ["Image_1", "Image_1"]),
        "Signature.features[1]: found 'Image_1'; allowed: each name once",
    ),
    (
        setting("signature.features.Image", "Image_1"),
        "Signature.features['Image']: found 'Image_1'; allowed: a tuple",
    ),
    (
        setting("signature.class_names", ["a", "b"]),
        "signature.class_names: found 2; allowed: 3, one a class",
    ),
    (
        setting("signature.mean", [0.5]),
        "Signature.mean: found 1 numbers for 'classes'; allowed: one a value, else none",
    ),
    (
        setting("backbones", {}),
        "task: found None for a network with backbones of ; allowed: the task that has them: "
        "load_network(path, task)",
    ),
    (tensor(LINEAR), f"tensor '{LINEAR}': found nothing; allowed: (3, 64), {SIZES}"),
    (
        tensor("cells.0.steps.0.ln.bias"),
        "tensor 'cells.0.steps.0.ln.bias': found nothing; allowed: shape (8, 4) of torch.float32",
    ),
    (
        tensor("cells.0.steps.0.ln.biases", lambda _: torch.zeros(3)),
        "tensor 'cells.0.steps.0.ln.biases': found one that is not expected (did you mean "
        "'cells.0.steps.0.ln.bias'?); allowed: those that are",
    ),
    (
        tensor("classifier.linear.bias", lambda t: t[:, None]),
        "tensor 'classifier.linear.bias': found shape (3, 1) of torch.float32; allowed: shape (3,) "
        "of torch.float32",
    ),
    (
        tensor("classifier.linear.bias", lambda t: t.half()),
        "tensor 'classifier.linear.bias': found shape (3,) of torch.float16; allowed: shape (3,) "
        "of torch.float32",
    ),
    (
        tensor("classifier.linear.bias", lambda t: t * torch.nan),
        f"tensor 'classifier.linear.bias': {NOT_FINITE}",
    ),
    (
        tensor("reshape.layers.0.bn.running_var", lambda t: t / 0),
        f"tensor 'reshape.layers.0.bn.running_var': {NOT_FINITE}",
    ),
]  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG)
def test_a_wrong_file_is_refused_in_one_line(change, message, files):
    path = rewritten(files["fusion"], change)
    with pytest.raises(bm.NetworkError) as error:
        bm.load_network(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_hash_that_does_not_fit_is_refused(files):
    path = files["fusion"]
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors[LINEAR][0, 0] += 1e-3
    save_file(tensors, path, header)
    with pytest.raises(
        bm.NetworkError,
        match=f"found another checksum of tensor '{LINEAR}'; allowed: that of the saved",
    ):
        bm.load_network(path)


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "cut", "folder", "number", "genotype"]
)
def test_what_is_no_such_file_is_named_in_one_line(kind, files, trained, tmp_path):
    path, good = tmp_path / kind, files["fusion"].read_bytes()
    content = {"empty": b"", "text": b"no tensors at all", "cut": good[:-100]}
    if kind in content:
        path.write_bytes(content[kind])
    if kind == "folder":
        path.mkdir()
    if kind == "genotype":
        trained["fusion"].genotype.save(path)
    with pytest.raises(bm.NetworkError, match="found no network") as error:
        bm.load_network(3 if kind == "number" else path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["fusion", "end-to-end"])
def test_no_flipped_bit_goes_unnoticed(kind, files, task):
    path, rng = files[kind], random.Random(0)
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little") + 8
    bits = [rng.randrange(8 * 8) for _ in range(16)]
    bits += [rng.randrange(8 * 8, 8 * header) for _ in range(160)]
    bits += [rng.randrange(8 * header, 8 * len(good)) for _ in range(80)]
    for bit in bits:
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(bm.NetworkError) as error:
            bm.load_network(path, task)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def other_task(**changes) -> bm.Task:
    """The tiny task with one thing different."""
    task = tiny_task()
    image = task.modalities[0]
    return replace(task, modalities=(replace(image, **changes), *task.modalities[1:]))


def test_a_network_with_backbones_needs_its_task(files, tmp_path):
    path = files["end-to-end"]

    def message(task=None) -> str:
        with pytest.raises(bm.NetworkError) as error:
            bm.load_network(path, task)
        return str(error.value).removeprefix(f"{path}: ")

    assert message() == (
        "task: found None for a network with backbones of Image, Audio; allowed: the task that has "
        "them: load_network(path, task)"
    )
    assert message(tiny_task(("Image", "Text"))).startswith(
        "features: found Image_1, Image_2, Audi"
    )
    assert message(tiny_task(channels=(5, 7))) == (
        "channels of 'Image_2': found 6; allowed: 7, as in task 'tiny'"
    )
    assert message(tiny_task(classes=4)) == "classes: found 3; allowed: 4, as in task 'tiny'"
    other = nn.Sequential(nn.Linear(2, 3))
    assert message(other_task(backbone=other)).startswith("backbones: found tensors {'Image': ('ba")
    wide = other_task(backbone=tiny_task(channels=(5, 9)).modalities[0].backbone)
    assert message(wide) == (
        "tensor 'backbones.0.layers.1.weight': found shape (6, 4, 1) of torch.float32; allowed: "
        "shape (9, 4, 1) of torch.float32"
    )
    with pytest.raises(bm.TaskError, match="task: found str; allowed: a Task"):
        bm.load_network(path, "tiny")


def test_a_task_that_does_not_fit_a_fusion_network_is_refused_too(files):
    with pytest.raises(bm.NetworkError, match="classes: found 3; allowed: 4, as in task 'tiny'"):
        bm.load_network(files["fusion"], tiny_task(classes=4))


def changed(net: nn.Module) -> nn.Module:
    net.classifier.linear = nn.Linear(64, 7)
    return net


def infinite(net: nn.Module) -> nn.Module:
    net.classifier.linear.bias.data[0] = torch.inf
    return net


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda net: nn.Linear(2, 2), "net: found Linear; allowed: a network, as train gives"),
        (lambda net: None, "net: found NoneType; allowed: a network, as train gives"),
        (lambda net: net.half(), "tensor 'reshape.layers.0.conv.weight': found shape (4, 3, 1) of "
            "torch.float16; allowed: shape (4, 3, 1) of torch.float32"),
        (lambda net: net.to("meta"), f"tensor 'reshape.layers.0.conv.weight': {NOT_FINITE}"),
        (infinite, f"tensor 'classifier.linear.bias': {NOT_FINITE}"),
        (changed, "tensor 'classifier.linear.weight': found shape (7, 64) of torch.float32; "
            "allowed: shape (2, 4) of torch.float32"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_not_saved(make, message, tmp_path):
    genotype = bm.Genotype(("A", "B"), [cell(("A", "B"), "sum")])
    net = make(bm.FusionNetwork(genotype, {"A": 3, "B": 2}, 2, C=4, L=1))
    path = tmp_path / "net.safetensors"
    with pytest.raises(bm.NetworkError) as error:
        bm.save_network(net, path)
    assert str(error.value) == message and not path.exists()


def test_a_path_that_cannot_be_written_is_named(trained, tmp_path):
    with pytest.raises(
        bm.BmnasError, match="path: found the folder .*; allowed: the path of a file"
    ):
        bm.save_network(trained["fusion"], tmp_path)


# --- signatures


def test_a_signature_is_the_tasks_and_round_trips():
    task = tiny_task(metric="weighted_f1")
    found = bm.Signature.from_task(task)
    assert found.labels == "multi-label" and found.task == "tiny (rule same)"
    assert found.feature_names == task.features and found.pooling_of("Audio_1") == "time"
    assert bm.Signature.from_json(found.to_json()) == found
    values = replace(found, labels="values", mean=(1.0, 2), scale=[0.5, 3])
    assert bm.Signature.from_json(values.to_json()) == values


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scale": (0.0,)}, "Signature.scale: found 0.0; allowed: above 0.0"),
        ({"scale": (1.0, 2.0)}, "Signature.scale: found 2 numbers; allowed: 1, as many as mean"),
        ({"mean": (float("inf"),)}, "Signature.mean: found inf; allowed: finite numbers"),
        ({"mean": ()}, "Signature.mean: found 0 numbers for 'values'; allowed: one a value, "
            "else none"),
        ({"task": None}, "Signature.task: found None; allowed: text"),
        ({"features": {"A": ("C1",)}}, "Signature.features[0]: found 'C1'; allowed: names other "
            "than C1, C2, …, which are Cells"),
        ({"features": {}}, "Signature.features: found []; allowed: at least one feature name"),
        ({"pooling": {1: "grid"}}, "Signature.pooling: key: found 1; allowed: text"),
    ],
)  # fmt: skip
def test_a_malformed_signature_is_refused(change, message):
    fields = {"task": "t", "features": {"A": ("A_1",)}, "pooling": {"A": "grid"}}
    fields |= {"labels": "values", "mean": (0.0,), "scale": (1.0,)}
    with pytest.raises(bm.ConfigError) as error:
        bm.Signature(**fields | change)
    assert str(error.value) == message


# --- torch.export and the command


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_exported_program_takes_any_number_of_samples(seed, tmp_path):
    example = random_example(seed)
    path = tmp_path / "net.pt2"
    program = bm.export_program(example.net, path, example.features)
    extra = {"genotype.json": "", "signature.json": ""}
    loaded = torch.export.load(path, extra_files=extra).module()
    assert bm.Genotype.from_json(extra["genotype.json"]) == example.net.genotype
    assert bm.Signature.from_json(extra["signature.json"]) == example.net.signature
    used = {name: example.features[name] for name in example.net.genotype.used_features}
    for module in (program.module(), loaded):
        torch.testing.assert_close(module(used), example.values(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_without_an_example_a_program_reads_pooled_features():
    example = random_example(3)
    length = example.net.L
    used = {name: example.pooled[name] for name in example.net.genotype.used_features}
    used = {name: x.expand(-1, -1, length).contiguous() for name, x in used.items()}
    module = bm.export_program(example.net).module()
    torch.testing.assert_close(module(used), example.values(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_program_reads_a_tasks_arrays_as_they_are(tmp_path):
    random = np.random.default_rng(0)
    features = {"Sound": random.normal(size=(30, 3, 9)), "Text": random.normal(size=(30, 4))}
    task = bm.Task.from_features("mine", features, np.arange(30) % 2)
    step = (bm.StepGenotype("sum", ("X", "Y")),)
    genotype = bm.Genotype(task.features, (bm.CellGenotype(task.features, step),))
    config = bm.TrainConfig(epochs=1)
    net, _ = bm.train(genotype, task, config, device="cpu", progress=False)
    assert net.signature.shapes == {"Sound_1": (3, 9), "Text_1": (4,)}
    bm.save_network(net, tmp_path / "n.safetensors")
    module = bm.export_program(bm.load_network(tmp_path / "n.safetensors")).module()
    given = {f"{name}_1": torch.from_numpy(a).float() for name, a in features.items()}
    found = module(given).softmax(1).detach().numpy()
    np.testing.assert_allclose(found, bm.predict(net, features).to_numpy(), atol=1e-5)
    done = CliRunner().invoke(
        app,
        ["export", str(tmp_path / "n.safetensors"), "--torch-export", "-o", f"{tmp_path}/n.pt2"],
    )
    assert "input Sound_1: (n, 3, 9)\ninput Text_1: (n, 4)" in done.output


@pytest.mark.slow
def test_backbones_are_exported_too(trained, task):
    module = bm.export_program(trained["end-to-end"]).module()
    inputs = {modality.name: modality.inputs[:7] for modality in task.modalities}
    torch.testing.assert_close(module(inputs), trained["end-to-end"](inputs))


class Branches(nn.Module):
    """Does what no program of one path can."""

    def __init__(self, C, L, dropout):
        super().__init__()

    def forward(self, x, y):
        return x if float(x.sum()) > 0 else y


def test_what_cannot_be_exported_is_refused_in_one_line(trained, tmp_path):
    path = tmp_path / "net.pt2"
    with OPERATIONS.restored():
        bm.register_operation("branches")(Branches)
        genotype = bm.Genotype(("A", "B"), [cell(("A", "B"), "branches")])
        net = bm.FusionNetwork(genotype, {"A": 3, "B": 2}, 2, C=4, L=2)
        with pytest.raises(bm.ExportError, match="torch.export: found .*") as error:
            bm.export_program(net, path)
    assert "\n" not in str(error.value) and not path.exists()
    net, full = trained["fusion"], {"Image_1": 5, "Image_2": 6, "Audio_2": 6}
    full = {name: torch.zeros(2, c, 4) for name, c in full.items()}
    wrong = [
        (nn.Linear(2, 2), None, "net: found Linear; allowed: a network, as train gives"),
        (net, [], "example: found list; allowed: a dict"),
        (net, {}, "example: found nothing for 'Image_1'; allowed: Image_1, Image_2, Audio_2"),
        (net, full | {"Image_2": 3}, "example['Image_2']: found 3; allowed: tensors of 2 samples "
            "or more"),
        (net, full | {"Image_2": torch.zeros(2, 9, 4)}, "feature 'Image_2': found shape (2, 9, 4); "
            "allowed: (N, 6, 4), or (N, 6, 1)"),
    ]  # fmt: skip
    for net, example, message in wrong:
        with pytest.raises(bm.BmnasError) as error:
            bm.export_program(net, path, example)
        assert str(error.value) == message and not path.exists()


def bmnas(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.slow
def test_the_command_writes_source_and_programs(files, trained, task, tmp_path):
    network = files["fusion"].rename(tmp_path / "net.safetensors")
    assert bmnas(network, "--source", "-o", tmp_path / "net.py") == (0, f"{tmp_path / 'net.py'}\n")
    assert (tmp_path / "net.py").read_text() == bm.network_source(trained["fusion"])
    assert bmnas(network, "--torch-export", "-o", tmp_path / "net.pt2")[0] == 0
    features = bm.FeatureBank(task, device="cpu").batch("test", torch.arange(9))[0]
    module = torch.export.load(tmp_path / "net.pt2").module()
    used = {name: features[name] for name in trained["fusion"].genotype.used_features}
    torch.testing.assert_close(module(used), trained["fusion"](used))


def test_the_command_writes_the_source_of_a_genotype_and_needs_its_task(tmp_path):
    task = bm.load_task("digits", rule="sum")
    genotype = bm.Genotype(task.features, [cell(("Image_1", "Audio_2"), "sum")])
    path, out = genotype.save(tmp_path / "genotype.json"), tmp_path / "net.py"
    given = ("--task", "digits", "-p", "rule", "sum")
    assert bmnas(path, "--source", "-o", out, *given)[0] == 0
    assert out.read_text() == genotype.to_source(task)
    out.unlink()
    for arguments, message in [
        (
            ("--source",),
            "error: --task: found none for a genotype; allowed: the task whose network",
        ),
        (("--torch-export", *given), "found a genotype, which has no weights; allowed: a network"),
        (
            (),
            "error: bmnas export: found both or neither; allowed: one of --source, --torch-export",
        ),
        (
            ("--source", "--torch-export"),
            "error: bmnas export: found both or neither; allowed: one",
        ),
    ]:
        code, output = bmnas(path, "-o", out, *arguments)
        assert code == 2 and message in output and not out.exists()
    code, output = bmnas(path, "-o", path, "--source", *given)
    assert code == 2 and "the network's own file; allowed: another one" in output
