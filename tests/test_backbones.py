"""The paper's backbones: equal to the published ones, small ones that learn, weights in files."""

import json
import math
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from bmnas_core import BmnasError, ConfigError, FeatureError, Modality, pool
from bmnas_core.backbones import ConvBackbone
from bmnas_core.backbones.paper import (
    HCN,
    VGG19,
    CheckpointError,
    InflatedResNet50,
    MaxoutMLP,
    ResNeXt3D,
    load_checkpoint,
    save_checkpoint,
)

#: Reference name → backbone at full size, seed of the input, pooling, length, whether it is slow.
GOLDEN = {
    "mmimdb_image": (VGG19, {}, 1004, "grid", 16, False),
    "mmimdb_text": (MaxoutMLP, {}, 1005, "grid", 16, False),
    "ntu_video": (InflatedResNet50, {}, 1000, "time", 8, True),
    "ntu_skeleton": (HCN, {}, 1001, "time", 8, False),
    "ego_rgb": (ResNeXt3D, {"colours": 3}, 1002, "time", 8, True),
    "ego_depth": (ResNeXt3D, {"colours": 1}, 1003, "time", 8, True),
}

#: Small backbones, as for the samples, and the shape of an input.
SMALL = {
    "VGG19": (lambda: VGG19(5, width=8), (3, 64, 40)),
    "MaxoutMLP": (lambda: MaxoutMLP(5), (300,)),
    "InflatedResNet50": (lambda: InflatedResNet50(5, 8, (1, 1, 1, 1)), (4, 48, 48, 3)),
    "HCN": (lambda: HCN(5), (3, 32, 25, 2)),
    "ResNeXt3D": (lambda: ResNeXt3D(5, 3, 8, (1, 1, 1, 1), 4), (3, 16, 32, 32)),
    "ResNeXt3D, depth": (lambda: ResNeXt3D(5, 1, 8, (1, 1, 1, 1), 4), (1, 16, 32, 32)),
}
small = pytest.mark.parametrize("name", SMALL)


def made(name, seed=0):
    """A small backbone in evaluation mode with random statistics in its BatchNorms."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = SMALL[name][0]()
        for key, tensor in backbone.state_dict().items():
            if "running" in key:
                tensor.uniform_(0.5, 1.5)
    return backbone.eval()


def example(name, n=2):
    return torch.randn(n, *SMALL[name][1], generator=torch.Generator().manual_seed(7))


def values(backbone):
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def outputs(backbone, x):
    features = backbone(x)
    return [*features, backbone.classify(features)]


# ---------------------------------------------------------------- equal to the published ones


@pytest.fixture(scope="module")
def reference(root):
    folder = root / "tests" / "golden" / "backbones"
    return lambda name: json.loads((folder / f"{name}.json").read_text()), folder


def reference_weights(shapes):
    """The weights with which the reference features were computed."""
    weights = {}
    for k, name in enumerate(sorted(shapes)):
        r = np.asarray(np.random.RandomState(k).standard_normal(shapes[name]), np.float32)
        if name.endswith("num_batches_tracked"):
            r = np.asarray(0)
        elif r.ndim > 1:
            r /= np.sqrt(np.float32(r[0].size))
        elif name.endswith("running_var"):
            r = 1 + np.float32(0.1) * abs(r)
        elif name.endswith(("running_mean", "bias")):
            r *= np.float32(0.1)
        else:
            r = 1 + np.float32(0.1) * r
        weights[name] = torch.from_numpy(r)
    return weights


@pytest.mark.parametrize("name", GOLDEN)
def test_names_shapes_and_parameters_are_the_published_ones(name, reference):
    meta = reference[0](name)
    build, arguments, *_ = GOLDEN[name]
    with torch.device("meta"):
        backbone = build(**arguments)
    assert {k: list(v.shape) for k, v in backbone.state_dict().items()} == meta["state_dict"]
    assert sum(p.numel() for p in backbone.parameters()) == meta["parameters"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if slow else []) for n, (*_, slow) in GOLDEN.items()],
)
def test_features_and_logits_are_the_published_ones(name, reference):
    meta, folder = reference[0](name), reference[1]
    build, arguments, seed, pooling, L, _ = GOLDEN[name]
    with torch.device("meta"):
        backbone = build(**arguments)
    backbone.load_state_dict(reference_weights(meta["state_dict"]), assign=True)
    x = np.random.RandomState(seed).standard_normal(meta["input"]).astype(np.float32)
    *features, logits = outputs(backbone.eval(), torch.from_numpy(x))
    assert [list(f.shape) for f in features] == meta["raw_feature_shapes"]
    assert backbone.channels == tuple(f.shape[1] for f in features)
    expected = load_file(folder / f"{name}.safetensors")
    # The published networks repeat a vector at every position.
    pooled = [pool(f, L, pooling).expand(-1, -1, L) for f in features]
    found = {f"feature{i + 1}": f for i, f in enumerate(pooled)}
    assert expected.keys() == found.keys() | {"logits"}
    for key, value in (found | {"logits": logits}).items():
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5 * scale, msg=key)


# ---------------------------------------------------------------- small ones


@pytest.mark.slow
@given(
    width=st.sampled_from([4, 6, 8]),
    blocks=st.tuples(*[st.integers(1, 2)] * 4),
    frames=st.integers(1, 20),
    height=st.integers(1, 60),
    side=st.integers(1, 60),
)
@settings(max_examples=25)
def test_videos_of_any_size_give_features_of_the_declared_channels(
    width, blocks, frames, height, side
):
    for backbone, x in (
        (InflatedResNet50(3, width, blocks), torch.randn(2, frames, height, side, 3)),
        (ResNeXt3D(3, 3, width, blocks, 2), torch.randn(2, 3, frames, height, side)),
        (ResNeXt3D(3, 1, width, blocks, 4), torch.randn(2, 1, frames, height, side)),
    ):
        *features, logits = outputs(backbone.eval(), x)
        channels = tuple(times * width for times in (8, 16, 32, 32))
        assert backbone.channels == channels == tuple(f.shape[1] for f in features)
        assert logits.shape == (2, 3) and logits.isfinite().all()
        lengths = [pool(f, 8, "time").shape[2] for f in features]
        assert lengths == [8 if f.dim() > 2 else 1 for f in features]


@given(width=st.integers(1, 9), height=st.integers(32, 100), side=st.integers(32, 100))
@settings(max_examples=25)
def test_images_of_any_size_give_features_of_the_declared_channels(width, height, side):
    backbone = VGG19(3, width).eval()
    *features, logits = outputs(backbone, torch.randn(2, 3, height, side))
    assert backbone.channels == (8 * width,) * 4 == tuple(f.shape[1] for f in features)
    sizes = [(height // k, side // k) for k in (8, 8, 16, 32)]
    assert [tuple(f.shape[2:]) for f in features] == sizes
    assert logits.shape == (2, 3)


def test_the_last_average_pool_is_the_mean_of_a_smaller_input():
    video, motion = made("InflatedResNet50"), made("ResNeXt3D")
    with torch.no_grad():
        *_, last, pooled = video(example("InflatedResNet50"))
        torch.testing.assert_close(pooled, last.mean((2, 3, 4)))
        *_, last, pooled = motion(example("ResNeXt3D").repeat(1, 1, 2, 4, 4))
        assert last.shape[2:] == (2, 4, 4)
        torch.testing.assert_close(pooled, last.mean((2, 3, 4), keepdim=True))


@small
def test_a_backbone_in_evaluation_mode_is_a_pure_function(name):
    backbone, x = made(name), example(name, 3)
    before, kept = values(backbone), x.clone()
    first, second = outputs(backbone, x), outputs(backbone, x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert same(before, values(backbone)) and torch.equal(x, kept)
    for whole, alone in zip(first, outputs(backbone, x[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], alone)


@small
def test_only_the_classifier_depends_on_the_head(name):
    backbone, x = made(name), example(name)
    before = outputs(backbone, x)
    for part in backbone.head:
        for parameter in backbone.get_submodule(part).parameters():
            torch.nn.init.normal_(parameter)
    *features, logits = outputs(backbone, x)
    assert all(torch.equal(a, b) for a, b in zip(features, before, strict=False))
    assert not torch.equal(logits, before[-1])


def test_bodies_may_be_swapped():
    backbone, x = made("HCN"), example("HCN")
    swapped = outputs(backbone, x.flip(-1))
    for one, other in zip(outputs(backbone, x), swapped, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(swapped[0], outputs(backbone, x[..., :1].repeat(1, 1, 1, 1, 2))[0])


def test_initial_values_keep_the_scale_through_sixteen_convolutions_without_batch_norm():
    x = torch.randn(4, 3, 64, 40, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = VGG19(5, width=16)
        for module in backbone.modules():  # as training on items does
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    for feature in outputs(backbone.eval(), x):
        assert 0.1 < float(feature.std()) < 10


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SMALL if n != "MaxoutMLP"])
def test_a_small_backbone_learns_from_scratch(name):
    """The class is the place of a bump: a quarter of the image, or some joints of the body."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = SMALL[name][0]()
        labels = torch.randint(4, (192,))
        x = torch.randn(192, *SMALL[name][1])
        for item, label in zip(x, labels, strict=True):
            row, column = divmod(int(label), 2)
            if name == "HCN":
                item *= 0.1
                item[column, :, 4 + 8 * row : 8 + 8 * row] += torch.linspace(0, 9, 32).sin()[
                    :, None, None
                ]
            else:
                axes = (1, 2) if name == "InflatedResNet50" else (-2, -1)
                for axis, half in zip(axes, (row, column), strict=True):
                    size = item.shape[axis] // 2
                    item.narrow(axis, half * size, size).add_(0.5)
        optimizer = torch.optim.AdamW(backbone.parameters(), 1e-3)
        backbone.train()
        for _ in range(30 if name == "HCN" else 100):
            rows = torch.randint(128, (8,))
            loss = F.cross_entropy(backbone.classify(backbone(x[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    logits = outputs(backbone.eval(), x[128:])[-1]
    assert float((logits.argmax(1) == labels[128:]).float().mean()) > 0.6


@pytest.mark.parametrize(
    "name, shape, allowed",
    [
        ("VGG19", (2, 1, 64, 40), r"\(N, 3, H, W\)"),
        ("VGG19", (2, 3, 31, 40), "32 × 32 or more"),
        ("MaxoutMLP", (2, 299), r"\(N, 300\)"),
        ("InflatedResNet50", (2, 3, 4, 48, 48), r"\(N, T, H, W, 3\)"),
        ("InflatedResNet50", (2, 0, 48, 48, 3), r"\(N, T, H, W, 3\)"),
        ("HCN", (2, 3, 16, 25, 2), r"\(N, 3, 32, 25, 2\)"),
        ("HCN", (2, 3, 32, 25), r"\(N, 3, 32, 25, 2\)"),
        ("ResNeXt3D, depth", (2, 3, 16, 32, 32), r"\(N, 1, T, H, W\)"),
    ],
)
def test_an_input_of_another_shape_is_refused(name, shape, allowed):
    with pytest.raises(FeatureError, match=f"{name.split(',')[0]}: found .*; allowed: {allowed}"):
        made(name)(torch.zeros(shape))


def test_a_resnext_of_impossible_sizes_is_refused():
    with pytest.raises(ConfigError, match="colours: found 2; allowed: 1 or 3"):
        ResNeXt3D(colours=2)
    with pytest.raises(ConfigError, match="cardinality: found 32; allowed: .* 16"):
        ResNeXt3D(width=8)


# ---------------------------------------------------------------- weights in files


@small
def test_saved_weights_are_read_back_bit_for_bit(name, tmp_path):
    one, other = made(name), made(name, seed=1)
    channels = {f"A_{i}": c for i, c in enumerate(one.channels)}
    assert one._origin == other._origin == "initial values"
    save_checkpoint(one, tmp_path / "a.safetensors")
    assert load_checkpoint(other, tmp_path / "a.safetensors") == []
    assert same(values(one), values(other)) and other._origin == "a.safetensors"
    x = example(name)
    assert all(map(torch.equal, outputs(one, x), outputs(other, x)))
    fingerprints = {Modality("A", b, channels, x).fingerprint() for b in (one, other)}
    assert len(fingerprints) == 1, "a bank must not depend on the origin of equal weights"


def test_a_saved_file_names_the_backbone(tmp_path):
    save_checkpoint(made("HCN"), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = json.loads(file.metadata()["bmnas"])
    assert (header["format"], header["backbone"]) == ("bmnas-backbone/1", "HCN")
    with pytest.raises(BmnasError, match="found suffix ''; allowed: '.safetensors'"):
        save_checkpoint(made("HCN"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


PREFIXES = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
#: What else is before all names: of Lightning, of FSDP, of a model with the backbone inside.
PREFIXES += ("model.", "_fsdp_wrapped_module.", "module.net.backbone._checkpoint_wrapped_module.")


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".PTH", ".pth.tar", ".checkpoint"])
@pytest.mark.parametrize("wrapping", [None, "state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.slow
def test_published_weights_are_read_however_they_were_saved(suffix, wrapping, prefix, tmp_path):
    one, other = made("InflatedResNet50"), made("InflatedResNet50", seed=1)
    data = {prefix + name: tensor for name, tensor in values(one).items()}
    if wrapping:
        data = {"epoch": 3, "arch": "x", wrapping: data, "optimizer": {"state": {}}}
    path = tmp_path / f"rgb_83.91{suffix}"
    torch.save(data, path, _use_new_zipfile_serialization=suffix != ".pth.tar")
    assert load_checkpoint(other, path) == []
    assert same(values(one), values(other)) and other._origin == path.name


@pytest.mark.parametrize(
    "around",
    [
        lambda data: {"hcn": data},
        lambda data: {"best": {"of 3 runs": data}, "score": 0.9},
        lambda data: {"ema": {"a": torch.ones(2)}, "model": data},
        lambda data: {"best_acc1": torch.tensor(83.9), "state_dict": data},
        lambda data: {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "hcn": data},
        lambda data: {"state_dict": data, "best_prec1": np.float64(93.1), "seen": np.int64(3)},
        lambda data: data | {"epoch": 3, "best": np.float32(0.9), "note": "x", "lr": None},
    ],
)
@pytest.mark.parametrize("numpy", ["_core", "core"], ids=["NumPy 2", "NumPy 1"])
def test_the_one_dictionary_of_tensors_is_read_whatever_is_around_it(around, numpy, tmp_path):
    one, other = made("HCN"), made("HCN", seed=1)
    torch.save(around(values(one)), tmp_path / "saved.pt")
    with (
        zipfile.ZipFile(tmp_path / "saved.pt") as old,
        zipfile.ZipFile(tmp_path / "a.pt", "w") as a,
    ):
        for part in old.namelist():
            a.writestr(part, old.read(part).replace(b"numpy._core", b"numpy." + numpy.encode()))
    assert load_checkpoint(other, tmp_path / "a.pt") == []
    assert same(values(one), values(other))


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda m: torch.compile(nn.DataParallel(m))]
)
def test_a_compiled_or_wrapped_backbone_is_saved_and_read_under_its_own_names(wrap, tmp_path):
    one, other = made("VGG19"), made("VGG19", seed=1)
    save_checkpoint(wrap(one), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == set(values(one))
        assert json.loads(file.metadata()["bmnas"])["backbone"] == "VGG19"
    assert load_checkpoint(wrap(other), tmp_path / "a.safetensors") == []
    assert same(values(one), values(other)) and other._origin == "a.safetensors"
    third = made("VGG19", seed=2)
    assert set(load_checkpoint(wrap(third), tmp_path / "a.safetensors", head=False)) > {
        "classifier.weight"
    }


@pytest.mark.slow
def test_a_part_that_was_compiled_alone_keeps_its_name(tmp_path):
    one, other = made("HCN"), made("HCN", seed=1)
    own = values(one)
    one.conv1 = torch.compile(one.conv1)
    assert "conv1._orig_mod.0.weight" in one.state_dict()
    save_checkpoint(one, tmp_path / "a.safetensors")
    torch.save(one.state_dict(), tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        other = made("HCN", seed=1)
        other.conv2 = torch.compile(other.conv2)
        load_checkpoint(other, tmp_path / name)
        found = {name.replace("_orig_mod.", ""): t for name, t in other.state_dict().items()}
        assert same(own, found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_all_of_which_were_halved_are_read(dtype, tmp_path):
    """Also the count of batches, which nothing uses, and which half precision cannot hold."""
    model, other = made("MaxoutMLP"), made("MaxoutMLP", seed=1)
    saved = {name: tensor.to(dtype) for name, tensor in values(model).items()}
    count = next(name for name in saved if name.endswith("num_batches_tracked"))
    saved[count] = torch.tensor(200_000).to(dtype)
    torch.save(saved, tmp_path / "a.pt")
    assert load_checkpoint(other, tmp_path / "a.pt") == []
    for name, tensor in values(other).items():
        if name != count:
            assert torch.equal(tensor, saved[name].to(tensor.dtype)), name


def test_averaged_weights_are_read(tmp_path):
    model, other = made("MaxoutMLP"), made("MaxoutMLP", seed=1)
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    averaged.update_parameters(model)
    torch.save(averaged.state_dict(), tmp_path / "swa.pt")
    assert load_checkpoint(other, tmp_path / "swa.pt") == []
    assert same(values(model), values(other))


def test_weights_without_a_head_are_read_if_it_is_left_aside(tmp_path):
    model, other = made("HCN"), made("HCN", seed=1)
    headless = {
        name: tensor
        for name, tensor in values(model).items()
        if name.split(".")[0] not in model.head
    }
    torch.save(headless, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="missing .*; head=False does not read the head; in"):
        load_checkpoint(other, tmp_path / "a.pt")
    assert load_checkpoint(other, tmp_path / "a.pt", head=False)
    assert all(torch.equal(values(other)[name], tensor) for name, tensor in headless.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_weights_of_another_precision_become_the_backbones(dtype, name, tmp_path):
    one, other = values(made("HCN")), made("HCN", seed=1)
    saved = {k: t.to(dtype) if t.is_floating_point() else t for k, t in one.items()}
    (torch.save if name == "a.pt" else save_file)(saved, tmp_path / name)
    load_checkpoint(other, tmp_path / name)
    for key, tensor in values(other).items():
        assert tensor.dtype == one[key].dtype and torch.equal(tensor, saved[key].to(tensor.dtype))


def test_old_weights_without_counted_batches_are_read(tmp_path):
    one, other = made("MaxoutMLP"), made("MaxoutMLP", seed=1)
    old = {n: t for n, t in values(one).items() if not n.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "a.pt")
    assert load_checkpoint(other, tmp_path / "a.pt") == []
    assert same(values(one), values(other))


@pytest.mark.parametrize(
    "name, other",
    [
        ("VGG19", VGG19(9, width=8)),
        ("MaxoutMLP", MaxoutMLP(9)),
        ("InflatedResNet50", InflatedResNet50(9, 8, (1, 1, 1, 1))),
        ("HCN", HCN(9)),
        ("ResNeXt3D", ResNeXt3D(9, 3, 8, (1, 1, 1, 1), 4)),
    ],
)
def test_weights_trained_for_other_classes_are_read_without_their_head(name, other, tmp_path):
    backbone, path = made(name), tmp_path / "kinetics.safetensors"
    save_checkpoint(other, path)
    before = values(backbone)
    with pytest.raises(CheckpointError, match=r"misshapen .*\(9.* for \(5.*head=False does"):
        load_checkpoint(backbone, path)
    assert same(before, values(backbone)) and backbone._origin == "initial values"
    kept = load_checkpoint(backbone, path, head=False)
    assert kept and {name.split(".")[0] for name in kept} == set(backbone.head)
    for key, tensor in values(backbone).items():
        assert torch.equal(tensor, before[key] if key in kept else other.state_dict()[key])


# ---------------------------------------------------------------- ImageNet's weights


def drawn(shapes, seed=3):
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=random) / max(np.prod(shape[1:]), 1) ** 0.5
        if len(shape) > 1
        else torch.rand(shape, generator=random) + 0.5
        for name, shape in shapes.items()
    }


def torchvision_vgg19(width=8):
    """Names and shapes of torchvision's vgg19, of another width."""
    numbers = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    times = (1, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8)
    shapes, before = {}, 3
    for number, k in zip(numbers, times, strict=True):
        shapes[f"features.{number}.weight"] = (k * width, before, 3, 3)
        shapes[f"features.{number}.bias"] = (k * width,)
        before = k * width
    for number, size in ((0, 49 * before), (3, 40), (6, 40)):
        shapes[f"classifier.{number}.weight"] = (40, size)
        shapes[f"classifier.{number}.bias"] = (40,)
    return drawn(shapes)


def torchvision_resnet50(width=8, blocks=(1, 1, 1, 1)):
    """Names and shapes of torchvision's resnet50, of another width and depth."""
    shapes = {"conv1.weight": (width, 3, 7, 7)}
    norms = {"bn1": width}
    before = width
    for stage, count in enumerate(blocks, 1):
        middle = width * 2 ** (stage - 1)
        for block in range(count):
            place = f"layer{stage}.{block}"
            shapes[f"{place}.conv1.weight"] = (middle, before, 1, 1)
            shapes[f"{place}.conv2.weight"] = (middle, middle, 3, 3)
            shapes[f"{place}.conv3.weight"] = (4 * middle, middle, 1, 1)
            norms |= {f"{place}.bn1": middle, f"{place}.bn2": middle, f"{place}.bn3": 4 * middle}
            if block == 0:
                shapes[f"{place}.downsample.0.weight"] = (4 * middle, before, 1, 1)
                norms[f"{place}.downsample.1"] = 4 * middle
            before = 4 * middle
    for name, size in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (size,)
    return drawn(shapes | {"fc.weight": (1000, before), "fc.bias": (1000,)})


def image_features(weights, x):
    """The four stages of a ResNet in two dimensions, one bottleneck each, written out."""

    def conv(x, name, **how):
        return F.conv2d(x, weights[f"{name}.weight"], **how)

    def norm(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(weights[f"{name}.{part}"] for part in parts))

    x = F.max_pool2d(norm(conv(x, "conv1", stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    features = []
    for stage in (1, 2, 3, 4):
        place, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        y = norm(conv(x, f"{place}.conv1"), f"{place}.bn1").relu()
        y = norm(conv(y, f"{place}.conv2", stride=stride, padding=1), f"{place}.bn2").relu()
        y = norm(conv(y, f"{place}.conv3"), f"{place}.bn3")
        shortcut = conv(x, f"{place}.downsample.0", stride=stride)
        x = (y + norm(shortcut, f"{place}.downsample.1")).relu()
        features.append(x)
    return features[1:]


@pytest.mark.parametrize("head", [True, False])
def test_imagenet_weights_of_vgg19_fill_all_but_the_head(head, tmp_path):
    backbone, weights = made("VGG19"), torchvision_vgg19()
    before = values(backbone)
    torch.save(weights, tmp_path / "vgg19-dcbb9e9d.pth")
    kept = load_checkpoint(backbone, tmp_path / "vgg19-dcbb9e9d.pth", head=head)
    assert {name.split(".")[0] for name in kept} == {"bn4", "classifier"}
    for name, tensor in values(backbone).items():
        published = name.replace("vgg.", "features.")
        assert torch.equal(tensor, before[name] if name in kept else weights[published]), name


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imagenet_weights_of_resnet50_give_a_still_video_the_features_of_its_image(
    suffix, tmp_path
):
    backbone, weights = made("InflatedResNet50"), torchvision_resnet50()
    path = tmp_path / f"resnet50{suffix}"
    (torch.save if suffix == ".pth" else save_file)(weights, path)
    assert set(load_checkpoint(backbone, path)) == {"classifier.weight", "classifier.bias"}
    kernel = backbone.state_dict()["cnn.layer2.0.conv2.weight"]
    torch.testing.assert_close(kernel.sum(2), weights["layer2.0.conv2.weight"])
    assert torch.equal(kernel[:, :, 0], kernel[:, :, 2])

    image = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    video = image.permute(0, 2, 3, 1).unsqueeze(1).expand(-1, 9, -1, -1, -1)
    with torch.no_grad():
        found, expected = backbone(video)[:3], image_features(weights, image)
    for feature, flat in zip(found, expected, strict=True):
        middle = feature[:, :, 4]  # four 3×3×3 kernels do not reach from here to the ends
        torch.testing.assert_close(middle, flat, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- what is refused


def without(data, *names):
    return {name: tensor for name, tensor in data.items() if name not in names}


@pytest.mark.parametrize(
    "name, data, message",
    [
        (
            "VGG19",
            torchvision_vgg19(width=4),
            r"32 misshapen \(vgg.0.weight: \(4, 3, 3, 3\) for \(8, 3, 3, 3\), .*, …\)",
        ),
        (
            "VGG19",
            without(torchvision_vgg19(), "features.34.weight", "features.34.bias"),
            r"2 missing \(vgg.34.weight, vgg.34.bias\)",
        ),
        (
            "InflatedResNet50",
            torchvision_resnet50(blocks=(2, 1, 1, 1)),
            r"15 unexpected \(cnn.layer1.1.conv1.weight, .*, .*, …\)",
        ),
        (
            "InflatedResNet50",
            without(torchvision_resnet50(), "bn1.running_var"),
            r"1 missing \(cnn.bn1.running_var\)",
        ),
        ("HCN", torchvision_resnet50(), r"24 missing \(.*, …\); \d+ unexpected \(conv1.weight, "),
        (
            "ResNeXt3D",
            values(made("ResNeXt3D, depth")),
            r"1 misshapen \(conv1.weight: \(8, 1, 7, 7, 7\) for \(8, 3, 3, 7, 7\)\)$",
        ),
        (
            "MaxoutMLP",
            values(made("MaxoutMLP")) | {"op5.weight": torch.ones(1)},
            r"1 unexpected \(op5.weight\)",
        ),
        (
            "MaxoutMLP",
            without(values(made("MaxoutMLP")), "hid2val.bias"),
            r"1 missing \(hid2val.bias\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_what_differs(name, data, message, tmp_path):
    backbone, path = made(name), tmp_path / "other.pth"
    before = values(backbone)
    torch.save(data, path)
    with pytest.raises(CheckpointError, match=f"other.pth: found .* {name}: (.*; )?{message}"):
        load_checkpoint(backbone, path)
    assert same(before, values(backbone)) and backbone._origin == "initial values"


class Code:
    """Leaves a file behind when its pickle is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "truncated"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(name, damage, tmp_path):
    backbone, path = made("HCN"), tmp_path / name
    before = values(backbone)
    if damage == "folder":
        path.mkdir()
    elif damage == "truncated":
        (torch.save if name == "a.pth" else save_file)(before, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage != "missing":
        path.write_text("hello world " * 20 if damage == "text" else "")
    with pytest.raises(CheckpointError, match=f"{name}: (cannot be read|found no checkpoint)") as e:
        load_checkpoint(backbone, path)
    assert len(str(e.value).splitlines()) == 1
    assert same(before, values(backbone))


@pytest.mark.parametrize(
    "data, message",
    [
        (torch.ones(2), "found Tensor; allowed: tensors by name"),
        ([torch.ones(2)], "found list; allowed"),
        ({}, "found nothing; allowed"),
        (
            {"epoch": 3, "net": {}},
            "found 'net': dict without tensors; allowed: tensors",
        ),
        ({0: torch.ones(2)}, "found 0: Tensor; allowed: tensors by name"),
        ({"a": torch.ones(2).to_sparse()}, "found 'a': Tensor; allowed: tensors by name"),
        ({"a": np.float64(1)}, r"found no tensor in \['a'\]; allowed"),
        ({"a": np.ones(2)}, "found more than tensors .numpy"),
        (
            {"ema": {"a": torch.ones(2)}, "best": {"a": torch.ones(2)}},
            "found 2 dictionaries of tensors: 'ema', 'best'; allowed: one, or one called 'state",
        ),
        (
            {"a": torch.ones(2), "_orig_mod.a": torch.ones(2)},
            "found names with and without _orig_mod.; allowed: each name once",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(data, message, tmp_path):
    torch.save(data, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"a.pt: {message}"):
        load_checkpoint(made("HCN"), tmp_path / "a.pt")


def damaged(kind):
    """Weights of VGG-19 with one tensor that cannot be right: its name, values, what is said."""
    weight = "classifier.weight"
    last = values(made("VGG19"))[weight]
    if kind == "int8":
        return weight, (10 * last).to(torch.int8), "found values of torch.int8; allowed: weights of"
    if kind == "float8":
        eight = last.to(torch.float8_e4m3fn)
        return weight, eight, "found values of torch.float8_e4m3fn; allowed: weights of float16, b"
    if kind == "bool":
        return weight, last > 0, "found values of torch.bool; allowed: weights of"
    if kind == "complex":
        return weight, last.to(torch.complex64), "found values of torch.complex64; allowed: weights"
    if kind == "a float where a number of batches is":
        name = next(n for n in values(made("VGG19")) if n.endswith("num_batches_tracked"))
        return name, torch.tensor(3.5), "found values of torch.float32; allowed: torch.int64"
    if kind == "negative variance":
        name = next(n for n in values(made("VGG19")) if n.endswith("running_var"))
        variance = values(made("VGG19"))[name].clone()
        variance[1] = -0.25
        return name, variance, "found a variance of -0.25; allowed: 0 or more"
    found, said = {"NaN": (math.nan, "NaN"), "infinity": (-math.inf, "infinity")}.get(
        kind, (1e60, "infinity")
    )
    last = last.double().clone()
    last.view(-1)[-1] = found
    return weight, last, f"found {said}; allowed: finite numbers in torch.float32"


@pytest.mark.parametrize(
    "kind",
    [
        "int8", "float8", "bool", "complex", "a float where a number of batches is",
        "negative variance", "NaN", "infinity", "too large for float32",
    ],
)  # fmt: skip
@pytest.mark.parametrize("file", ["a.pt", "a.safetensors"])
def test_values_that_cannot_be_weights_are_refused_and_nothing_is_read(kind, file, tmp_path):
    name, tensor, message = damaged(kind)
    backbone, data = made("VGG19", seed=1), values(made("VGG19")) | {name: tensor}
    before = values(backbone)
    (torch.save if file == "a.pt" else save_file)(data, tmp_path / file)
    with pytest.raises(CheckpointError, match=f"{file}: {name}: {message}"):
        load_checkpoint(backbone, tmp_path / file)
    assert same(before, values(backbone)) and backbone._origin == "initial values"


def test_integers_are_refused_where_kernels_are_inflated(tmp_path):
    backbone, weights = made("InflatedResNet50"), torchvision_resnet50()
    name = "layer2.0.conv2.weight"
    weights[name] = (10 * weights[name]).to(torch.int8)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=f"cnn.{name}: found values of torch.int8"):
        load_checkpoint(backbone, tmp_path / "a.safetensors")


def test_a_compressed_file_is_refused_before_it_fills_the_memory(tmp_path):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    bomb = zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, bomb:
        for part in plain.namelist():
            bomb.writestr(part, plain.read(part))
    assert (tmp_path / "a.pt").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="a.pt: .*: found compressed; allowed: as it is"):
        load_checkpoint(made("HCN"), tmp_path / "a.pt")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(suffix, tmp_path):
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(CheckpointError, match="cannot be read .no file, but a device, a pipe or"):
        load_checkpoint(made("HCN"), tmp_path / f"a{suffix}")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(zipped, tmp_path):
    path, trap = tmp_path / "a.pt", tmp_path / "trap"
    if zipped:
        torch.save(values(made("HCN")) | {"x": Code(trap)}, path)
    else:
        path.write_bytes(pickle.dumps({"x": Code(trap)}, protocol=2))
    with pytest.raises(CheckpointError, match="a.pt: found "):
        load_checkpoint(made("HCN"), path)
    assert not trap.exists()


def test_anything_but_a_path_and_a_module_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="None: cannot be read"):
        load_checkpoint(made("HCN"), None)
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(CheckpointError, match="a.npz: found suffix '.npz'; allowed: .safetensors"):
        load_checkpoint(made("HCN"), tmp_path / "a.npz")
    with pytest.raises(CheckpointError, match="backbone: found str; allowed: a torch module"):
        load_checkpoint("HCN", tmp_path / "a.pt")


def test_weights_of_any_other_module_are_saved_and_read_too(tmp_path):
    one, other = ConvBackbone((4, 8, 8)), ConvBackbone((4, 8, 8))
    save_checkpoint(one, tmp_path / "a.safetensors")
    assert load_checkpoint(other, tmp_path / "a.safetensors") == []
    assert same(values(one), values(other)) and other._origin == "a.safetensors"
    with pytest.raises(CheckpointError, match="do not fit this ConvBackbone: .* misshapen"):
        load_checkpoint(ConvBackbone(), tmp_path / "a.safetensors")
