"""Any model as a backbone, any Dataset as inputs: equal to what is written by hand, or refused."""

import copy
import gc
import multiprocessing
import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

import bmnas_core as bm
from bmnas_core.backbones.tap import Tapped
from bmnas_core.config import SearchSettings, Settings
from bmnas_core.features import RawInputs

N = 40
LABELS = np.arange(N) % 2
SMALL = Settings(C=4, L=2, N=1, M=1, epochs=1, batch_size=8)
QUICK = SearchSettings(selection="argmax", epochs=1, tuning_epochs=0)


# --- models as torchvision and transformers build them


class Block(nn.Module):
    """A residual block."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)).add_(self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's names; images (n, 3, H, W) → logits (n, 2)."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(4)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(2)
            widths = (4, 4, 6, 8, 10)
            for i in range(1, 5):
                block = Block(widths[i - 1], widths[i], 1 if i == 1 else 2)
                setattr(self, f"layer{i}", nn.Sequential(block))
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.dropout = nn.Dropout(0.5)
            self.fc = nn.Linear(10, 2)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


class ModelOutput(OrderedDict):
    """A dict whose keys are attributes too."""

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)


class Layer(nn.Module):
    """One layer of an encoder; hidden states (n, T, C) → a tuple of them and the attention."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.output = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width)

    def forward(self, x, padding=None):
        found, weights = self.attention(x, x, x, key_padding_mask=padding)
        return self.LayerNorm(x + self.output(found).relu()), weights


class Encoder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layer = nn.ModuleList(Layer(width) for _ in range(2))

    def forward(self, x, padding=None):
        for layer in self.layer:
            x = layer(x, padding)[0]
        return ModelOutput(last_hidden_state=x)


class Bert(nn.Module):
    """transformers' names and keywords; token ids (n, T) → a ModelOutput."""

    def __init__(self, width: int = 6, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embeddings = nn.Embedding(20, width)
            self.encoder = Encoder(width)
            self.pooler = nn.Linear(width, 5)

    def forward(self, *, input_ids, attention_mask=None):
        padding = None if attention_mask is None else ~attention_mask
        hidden = self.encoder(self.embeddings(input_ids), padding).last_hidden_state
        pooled = self.pooler(hidden[:, 0]).tanh()
        return ModelOutput(last_hidden_state=hidden, pooler_output=pooled)


class ViT(nn.Module):
    """Images (n, 3, 8, 8) as 2 × 4 patches behind a class token."""

    def __init__(self, width: int = 6):
        super().__init__()
        self.patches = nn.Conv2d(3, width, (4, 2), (4, 2))
        self.token = nn.Parameter(torch.ones(1, 1, width))
        self.encoder = Encoder(width)

    def forward(self, pixel_values):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return self.encoder(torch.cat([self.token.expand(len(x), 1, -1), x], dim=1))


def with_mask(model, ids):
    return model(input_ids=ids, attention_mask=ids != 0)


PAD = 0


def with_padding(model, ids):
    return model(input_ids=ids, attention_mask=ids != PAD)


# --- inputs


def images(n: int = N, size: int = 16) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, size, size, generator=random) + torch.from_numpy(
        LABELS[:n, None, None, None]
    )


def token_ids(n: int = N) -> torch.Tensor:
    ids = torch.randint(1, 20, (n, 7), generator=torch.Generator().manual_seed(2))
    ids[::3, 5:] = 0
    return ids


class Photos(Dataset):
    """Images in memory with their labels, scaled as they are read; ``bad`` ones cannot be."""

    def __init__(self, values=None, bad=()):
        self.values = images() if values is None else values
        self.bad, self.reads = bad, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, item):
        self.reads += 1
        if item in self.bad:
            raise bm.DataError(f"photo {item} is broken")
        return self.values[item] / 2, int(item)


class Returns(Dataset):
    """Items made by a function of their number."""

    def __init__(self, make, n=N):
        self.make, self.n = make, n

    def __len__(self):
        return self.n

    def __getitem__(self, item):
        return self.make(item)


RESNET = {"Image_1": "layer1", "Image_2": "layer3", "Image_3": "avgpool"}
BERT = {
    "Text_1": bm.Tap("encoder.layer.0", output=0, layout="tokens"),
    "Text_2": bm.Tap("encoder", output="last_hidden_state", layout="channels_last"),
    "Text_3": bm.Tap("", output="pooler_output"),
}


def image_modality(inputs=None, **more):
    inputs = Photos() if inputs is None else inputs
    return bm.Modality("Image", bm.tap(ResNet(), RESNET), inputs, **more)


def text_modality(inputs=None, **more):
    inputs = token_ids() if inputs is None else inputs
    return bm.Modality("Text", bm.tap(Bert(), BERT, call=with_mask), inputs, **more)


def own_task(*modalities, **changes):
    modalities = modalities or (image_modality(), text_modality())
    given = {"labels": LABELS, "config": SMALL, "search_config": QUICK}
    return bm.Task.from_modalities("own", modalities, **given | changes)


def bank_of(task, workers=0, **more):
    return bm.FeatureBank(task, device="cpu", workers=workers, progress=False, **more)


def same_features(one, other):
    assert list(one.features) == list(other.features)
    return all(torch.equal(one.features[name], other.features[name]) for name in one.features)


# --- taps


class ResNetByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ResNet()

    def forward(self, x):
        net = self.net
        one = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        three = net.layer3(net.layer2(one))
        return [one, three, net.avgpool(net.layer4(three))]


class BertByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Bert()

    def forward(self, ids):
        net, padding = self.net, ids == 0
        one = net.encoder.layer[0](net.embeddings(ids), padding)[0]
        two = net.encoder.layer[1](one, padding)[0]
        return [one.transpose(1, 2), two.transpose(1, 2), net.pooler(two[:, 0]).tanh()]


def test_taps_give_the_bank_of_backbones_written_by_hand():
    task = own_task()
    assert task.channels == {
        "Image_1": 4, "Image_2": 8, "Image_3": 10, "Text_1": 6, "Text_2": 6, "Text_3": 5,
    }  # fmt: skip
    written = own_task(
        bm.Modality("Image", ResNetByHand(), task.modalities[0].channels, images() / 2),
        bm.Modality("Text", BertByHand(), task.modalities[1].channels, token_ids()),
    )
    assert same_features(bank_of(task), bank_of(written))
    assert task.modality("Text").shapes == {"Text_1": (6, 7), "Text_2": (6, 7), "Text_3": (5,)}


def test_patches_are_folded_into_their_grid_without_the_class_token():
    model, x = ViT().eval(), images(5, 8)
    taps = {
        "patches": "patches",
        "tokens": bm.Tap("encoder.layer.1", output=0, layout="tokens"),
        "grid": bm.Tap("encoder.layer.1", output=0, layout="tokens", skip=1, grid=(2, 4)),
    }
    with torch.no_grad():
        patches, tokens, grid = bm.tap(model, taps)(x)
        last = model(x).last_hidden_state
    assert torch.equal(patches, model.patches(x)) and patches.shape == (5, 6, 2, 4)
    assert torch.equal(tokens, last.transpose(1, 2))
    assert torch.equal(grid[:, :, 1, 2], last[:, 1 + 4 + 2])


@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_a_layout_says_where_the_channels_are(shape):
    values = torch.randn(*shape)
    for layout, expected in (("channels_first", values), ("channels_last", values.movedim(-1, 1))):
        tapped = bm.tap(nn.Identity(), {"a": bm.Tap("", layout=layout)})
        assert torch.equal(tapped(values)[0], expected)


def test_the_parts_of_an_output_are_picked_by_index_key_or_attribute():
    class Parts(nn.Module):
        def forward(self, x):
            return self.pack(x)

    class Result:
        def __init__(self, x):
            self.hidden = x

    model, x = Parts(), torch.randn(3, 4)
    for pack, output in (
        (lambda x: (None, x), 1),
        (lambda x: [x, 3], -2),
        (lambda x: {"hidden": x}, "hidden"),
        (lambda x: {4: x}, 4),
        (Result, "hidden"),
    ):
        model.pack = pack
        assert torch.equal(bm.tap(model, {"a": bm.Tap("", output=output)})(x)[0], x)


def test_a_feature_is_what_the_module_gave_though_a_later_one_works_in_place():
    model, x = ResNet().eval(), images(3)
    with torch.no_grad():
        (found,) = bm.tap(model, {"a": "bn1"})(x)
        assert torch.equal(found, model.bn1(model.conv1(x))) and found.min() < 0


def test_of_several_calls_in_one_pass_the_last_counts():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    x = torch.randn(3, 4)
    for name in "02":
        assert torch.equal(bm.tap(model, {"a": name})(x)[0], model(x))


def test_a_tapped_model_is_left_as_it_was():
    model = ResNet().train()
    model.layer2.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [part.training for part in model.modules()]
    random = torch.random.get_rng_state()
    tapped = bm.tap(model, {"a": "layer1", "b": "dropout"})
    assert bm.Modality("Image", tapped, images()).channels == {"a": 4, "b": 10}
    with pytest.raises(bm.FeatureError, match="backbone of 'Text': found RuntimeError"):
        bm.Modality("Text", tapped, torch.ones(N, 5))
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name])
    assert not any(part._forward_hooks for part in model.modules())
    bank_of(own_task(bm.Modality("Image", tapped, images()), text_modality()), 0)
    assert [part.training for part in model.modules()] == modes
    features = tapped(images(2))
    left = [weakref.ref(feature) for feature in features]
    del features
    gc.collect()
    assert [feature() for feature in left] == [None, None]


def test_threads_that_run_the_same_model_get_each_their_own_features():
    model = ResNet().eval()
    tapped, batches = bm.tap(model, RESNET), images().split(2)
    with torch.no_grad():
        alone = [tapped(batch) for batch in batches]

        def run(batch):
            with torch.no_grad():
                return tapped(batch)

        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(run, batches))
    for one, other in zip(alone, together, strict=True):
        assert all(map(torch.equal, one, other))


def test_a_copy_has_weights_of_its_own_and_gradients_flow_through_taps():
    tapped = bm.tap(ResNet(), RESNET)
    other = copy.deepcopy(tapped)
    other(images(4))[1].sum().backward()
    with_gradient = {name for name, p in other.named_parameters() if p.grad is not None}
    assert "model.layer3.0.conv1.weight" in with_gradient
    assert not any("layer4" in name for name in with_gradient)
    assert all(p.grad is None for p in tapped.parameters())


def fingerprint(call=with_mask, seed=0, inputs=None, **changes):
    tapped = bm.tap(Bert(seed=seed), BERT | changes, call=call)
    return bm.Modality("Text", tapped, token_ids() if inputs is None else inputs).fingerprint()


def test_whatever_a_tap_reads_is_part_of_what_determines_features(monkeypatch):
    first = fingerprint()
    assert fingerprint() == first
    tokens = bm.Tap("encoder.layer.0", output=0, layout="tokens", skip=1)
    other_module = bm.Tap("encoder.layer.1", output=0, layout="tokens")
    found = [
        first,
        fingerprint(seed=1),
        fingerprint(Text_1=tokens),
        fingerprint(Text_1=other_module),
        fingerprint(Text_1=replace(tokens, skip=0, layout="channels_last")),
        fingerprint(call=lambda model, ids: model(input_ids=ids)),
        fingerprint(call=with_padding),
        fingerprint(call=lambda model, ids: with_padding(model, ids)),
    ]
    monkeypatch.setitem(with_padding.__globals__, "PAD", 1)
    found += [fingerprint(call=with_padding)]
    found += [fingerprint(call=lambda model, ids: with_padding(model, ids))]
    assert len(set(found)) == len(found)


# --- data sets


@pytest.mark.slow
def test_a_data_set_gives_the_features_of_the_same_values_in_memory():
    plain = bank_of(own_task(image_modality(images() / 2), text_modality()))
    ids = token_ids()
    for photos, texts in (
        (Photos(), TensorDataset(ids, torch.from_numpy(LABELS))),
        (Returns(lambda i: (images()[i] / 2).double().numpy()), Returns(lambda i: ids[i].numpy())),
        (Subset(Photos(), range(N)), bm.DatasetInputs([*ids])),
    ):
        for workers in (0, 2):
            task = own_task(image_modality(photos), text_modality(texts))
            assert same_features(bank_of(task, workers), plain)


def test_items_that_a_data_set_cannot_read_are_left_out_with_their_samples():
    task = own_task(image_modality(Photos(bad=(0, 7))), text_modality())
    for workers in (0, 1):
        with pytest.warns(bm.DataWarning, match="2 left out: Image item 0: photo 0 is broken; Im"):
            bank = bank_of(task, workers)
        assert list(bank.skipped["Image"]) == [0, 7]
        assert bank.size("train+validation+test") == N - 2


def test_a_data_set_is_known_by_its_values_or_by_the_version_that_is_given():
    other = images()
    other[-1, 2, 3, 4] += 1e-3
    first = image_modality(Photos()).fingerprint()
    assert image_modality(Photos()).fingerprint() == first
    assert image_modality(Photos(other)).fingerprint() != first
    assert image_modality(Photos(bad=(3,))).fingerprint() != first
    photos = [Photos(), Photos(other), Photos()]
    versions = ["1", "1", "2"]
    one, same, two = (
        image_modality(bm.DatasetInputs(p, version=v)).fingerprint()
        for p, v in zip(photos, versions, strict=True)
    )
    assert one == same != two
    assert [p.reads for p in photos] == [3, 3, 3]  # to see shape and features


class Killed(BaseException):
    """Ends an extraction, as the end of the process would."""


@pytest.mark.parametrize("reads", [5, 23, N - 1])
def test_an_interrupted_bank_of_a_data_set_goes_on_and_equals_an_unbroken_one(
    tmp_path, monkeypatch, reads
):
    monkeypatch.setattr("bmnas_core.feature_files.FLUSH_EVERY", 8)
    monkeypatch.setattr("bmnas_core.features.MAX_VALUES_PER_FORWARD", 4 * 3 * 16 * 16)

    def task(photos):
        return own_task(image_modality(bm.DatasetInputs(photos, version="1")), text_modality())

    whole = bank_of(task(Photos()), folder=tmp_path / "whole")
    photos, original = Photos(), Photos.__getitem__
    broken = task(photos)
    with monkeypatch.context() as patch:
        start = photos.reads

        def reading(self, item):
            if self.reads - start > reads:
                raise Killed
            return original(self, item)

        patch.setattr(Photos, "__getitem__", reading)
        with pytest.raises(Killed):
            bank_of(broken, folder=tmp_path / "banks")
    photos = Photos()
    resumed = task(photos)
    before = photos.reads
    bank = bank_of(resumed, folder=tmp_path / "banks")
    assert same_features(bank, whole)
    assert photos.reads - before == 1 + N - reads // 8 * 8  # one for the shape
    again = Photos()
    assert same_features(bank_of(task(again), folder=tmp_path / "banks"), whole)
    assert again.reads == 3


def test_two_tapped_modalities_are_searched_trained_and_fine_tuned():
    photos = bm.DatasetInputs(Photos(), version="1")
    task = own_task(image_modality(photos), text_modality(TensorDataset(token_ids())))
    search = bm.Search(task, device="cpu")
    for state in search:
        assert np.isfinite(state.val_loss)
    config = bm.TrainConfig(epochs=2, data="train")
    net, _ = bm.train(search.best_genotype, task, config, device="cpu", progress=False)
    assert 0 <= bm.evaluate(net, task) <= 1
    cell = bm.CellGenotype(("Image_2", "Text_1"), (bm.StepGenotype("sum", ("X", "Y")),))
    genotype = bm.Genotype(task.features, (cell,))
    before = [copy.deepcopy(modality.backbone.state_dict()) for modality in task.modalities]
    config = bm.TrainConfig(epochs=1, finetune=True, backbone_lr=0.01)
    net, history = bm.train(genotype, task, config, device="cpu", progress=False)
    assert np.isfinite(history[0]["train_loss"]) and 0 <= bm.evaluate(net, task) <= 1
    for modality, tuned, old in zip(task.modalities, net.backbones, before, strict=True):
        assert all(torch.equal(v, old[k]) for k, v in modality.backbone.state_dict().items())
        changed = {k for k, v in tuned.state_dict().items() if not torch.equal(v, old[k])}
        assert changed and not any("layer4" in k or "running" in k for k in changed)


@pytest.mark.slow
def test_a_network_with_a_tapped_model_is_a_program_for_any_number_of_samples():
    task = own_task(image_modality(), text_modality())
    cell = bm.CellGenotype(("Image_2", "Text_1"), (bm.StepGenotype("sum", ("X", "Y")),))
    config = bm.TrainConfig(epochs=1, finetune=True)
    genotype = bm.Genotype(task.features, (cell,))
    net, _ = bm.train(genotype, task, config, device="cpu", progress=False)
    program = bm.export_program(net).module()
    inputs = {modality.name: modality.inputs[:7] for modality in task.modalities}
    torch.testing.assert_close(program(inputs), net(inputs))


def test_raw_inputs_keep_the_type_of_tokens():
    task = own_task(text_modality(TensorDataset(token_ids())), image_modality())
    for workers in (0, 1):
        batch, _ = RawInputs(task, workers=workers).batch("train", torch.arange(3))
        assert batch["Text"].dtype == torch.int64 and batch["Image"].dtype == torch.float32
        assert torch.equal(batch["Text"], token_ids()[task.split("train").index[:3, 0]])


def test_a_task_of_modalities_has_the_settings_of_one_of_their_features():
    modalities = image_modality(), text_modality()
    task = bm.Task.from_modalities("own", modalities, LABELS, class_names=("a", "b"), seed=3)
    arrays = {
        m.name: {name: np.ones((N, *shape)) for name, shape in m.shapes.items()} for m in modalities
    }
    other = bm.Task.from_features("own", arrays, LABELS, class_names=("a", "b"), seed=3)
    assert task.config == other.config and task.search_config == other.search_config
    assert task.channels == other.channels and task.class_names == other.class_names
    assert task.config.L == 4
    for name, split in task.splits.items():
        assert torch.equal(split.index, other.splits[name].index)


# --- the packages themselves, if they are there


def test_networks_of_torchvision_are_tapped():
    models = pytest.importorskip("torchvision.models")
    net, x = models.resnet18().eval(), images(2, 32)
    with torch.no_grad():
        one, two = bm.tap(net, {"a": "layer1", "b": "bn1"})(x)
        bn1 = net.bn1(net.conv1(x))
        assert torch.equal(two, bn1)
        assert torch.equal(one, net.layer1(net.maxpool(bn1.relu())))
    swin = bm.tap(models.swin_t(), {"a": "features.1"})
    with pytest.raises(bm.FeatureError, match="ends with the 96 channels .*; allowed: layout='ch"):
        swin(x)


def test_networks_of_timm_are_tapped():
    timm = pytest.importorskip("timm")
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0).eval()
    taps = {"a": bm.Tap("blocks.3", layout="tokens", skip=1, grid=(2, 2)), "b": "patch_embed.proj"}
    with torch.no_grad():
        one, two = bm.tap(net, taps)(images(2, 32))
        (found,) = net.forward_intermediates(images(2, 32), indices=[3], intermediates_only=True)
    assert torch.equal(one, found) and two.shape == (2, 192, 2, 2)


def test_networks_of_transformers_are_tapped():
    hub = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    net = hub.BertModel(hub.BertConfig(**sizes, intermediate_size=16, vocab_size=20)).eval()
    hidden = bm.Tap("", output="last_hidden_state", layout="tokens")
    taps = {"a": bm.Tap("embeddings", layout="tokens"), "b": "pooler", "c": hidden}
    mask = lambda model, ids: model(input_ids=ids, attention_mask=(ids != 0).long())  # noqa: E731
    with torch.no_grad():
        one, two, three = bm.tap(net, taps, call=mask)(token_ids(4))
        whole = net(token_ids(4), (token_ids(4) != 0).long(), output_hidden_states=True)
    assert torch.equal(one, whole.hidden_states[0].transpose(1, 2))
    assert torch.equal(two, whole.pooler_output)
    assert torch.equal(three, whole.last_hidden_state.transpose(1, 2))


@pytest.mark.gpu
def test_features_of_a_tapped_model_are_the_same_on_a_gpu():
    task = own_task(image_modality(), text_modality(TensorDataset(token_ids())))
    one, other = bank_of(task), bm.FeatureBank(task, device="cuda", progress=False)
    for name, values in one.features.items():
        torch.testing.assert_close(other.features[name].cpu(), values, rtol=1e-3, atol=1e-3)
    assert next(task.modalities[0].backbone.parameters()).device.type == "cpu"


# --- what is wrong


def tapping(**taps):
    return lambda: bm.tap(ResNet(), taps)


def reading(one, model=None, call=None, inputs=None):
    """The modality of one tap of an encoder."""

    def read():
        tapped = bm.tap(Bert() if model is None else model, {"a": one}, call=call or with_mask)
        return bm.Modality("Text", tapped, token_ids() if inputs is None else inputs)

    return read


def data(make, n=N):
    """The bank of a data set whose items are made so, read by a worker."""
    return lambda: bank_of(own_task(image_modality(Returns(make, n)), text_modality()), 1)


def broken(item):
    if item == 3:
        raise KeyError("photo\nthree")
    return images()[item]


def with_item_3(value):
    return lambda item: value if item == 3 else images()[item]


class Endless(IterableDataset):
    def __iter__(self):
        yield images()[0]


class WithoutLength(Dataset):
    def __getitem__(self, item):
        return images()[item]


class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


WRONG = {
    "a model that is none": (
        lambda: bm.tap("resnet18", {"a": "layer1"}),
        "model: found str; allowed: a torch.nn.Module",
    ),
    "no taps": (
        tapping(),
        "taps: found {}; allowed: a dict from feature names to names of submodules",
    ),
    "a list of taps": (
        lambda: bm.tap(ResNet(), ["layer1"]),
        "taps: found ['layer1']; allowed: a dict from feature names to names of submodules",
    ),
    "a near miss": (
        tapping(a="layr1"),
        "tap 'a': found module 'layr1' (did you mean 'layer1'?); allowed: conv1, bn1, relu, "
        "maxpool, layer1, layer2, layer3, layer4 and 3 more",
    ),
    "an unknown module": (
        tapping(a="layer1.0.mlp"),
        "tap 'a': found module 'layer1.0.mlp' (did you mean 'layer1.0.relu'?); allowed: "
        "layer1.0.conv1, layer1.0.bn1, layer1.0.relu, layer1.0.conv2, layer1.0.bn2, "
        "layer1.0.downsample",
    ),
    "one of thousands": (
        lambda: bm.tap(nn.Sequential(*map(nn.Linear, [1] * 2000, [1] * 2000)), {"a": "x"}),
        "tap 'a': found module 'x'; allowed: 0, 1, 2, 3, 4, 5, 6, 7 and 1992 more",
    ),
    "a tap that is a number": (
        tapping(a=3),
        "tap 'a': found int; allowed: the name of a submodule, or a bm.Tap",
    ),
    "the same tap twice": (
        tapping(a="layer1", b=bm.Tap("layer1")),
        "tap 'b': found the same as tap 'a'; allowed: another module or output",
    ),
    "a feature without a name": (
        lambda: bm.tap(ResNet(), {"": "layer1"}),
        "features[0]: found ''; allowed: a printable name",
    ),
    "the name of a Cell": (
        tapping(C1="layer1"),
        "features[0]: found 'C1'; allowed: names other than C1, C2, …, which are Cells",
    ),
    "a list of modules": (
        reading("encoder.layer"),
        "tap 'a': found 'encoder.layer', a ModuleList, which is never called; allowed: "
        "encoder.layer.0, encoder.layer.1",
    ),
    "a module that is not called": (
        reading("pooler", call=lambda model, ids: model.encoder(model.embeddings(ids))),
        "tap 'a' (pooler): found no call of it; allowed: a module that the model calls",
    ),
    "a call that is no function": (
        lambda: bm.tap(Bert(), BERT, call="input_ids"),
        "call: found 'input_ids'; allowed: a function of the model and a batch",
    ),
    "a layout": (
        lambda: bm.Tap("layer1", layout="token"),
        "Tap.layout: found 'token' (did you mean 'tokens'?); allowed: 'channels_first', "
        "'channels_last', 'tokens'",
    ),
    "an output": (
        lambda: bm.Tap("layer1", output=1.5),
        "Tap.output: found 1.5; allowed: an integer or text",
    ),
    "skip without tokens": (
        lambda: bm.Tap("layer1", skip=1),
        "Tap.skip: found 1 without tokens; allowed: layout='tokens'",
    ),
    "a negative skip": (
        lambda: bm.Tap("layer1", layout="tokens", skip=-1),
        "Tap.skip: found -1; allowed: at least 0",
    ),
    "a grid of nothing": (
        lambda: bm.Tap("layer1", layout="tokens", grid=(0, 4)),
        "Tap.grid: found (0, 4); allowed: at least 1",
    ),
    "a tuple": (
        reading("encoder.layer.0"),
        "tap 'a' (encoder.layer.0): found a tuple of 2; allowed: a tensor, or output=0 … 1 to "
        "pick from it",
    ),
    "a dict": (
        reading("encoder"),
        "tap 'a' (encoder): found a ModelOutput with last_hidden_state; allowed: a tensor, or "
        "output='last_hidden_state', … to pick from it",
    ),
    "an index behind the tuple": (
        reading(bm.Tap("encoder.layer.0", output=2)),
        "tap 'a' (encoder.layer.0): output: found 2 of a tuple of 2; allowed: output=0 … 1 to "
        "pick from it",
    ),
    "an unknown key": (
        reading(bm.Tap("", output="pooler_outptu")),
        "tap 'a' (the model itself): output: found 'pooler_outptu' (did you mean "
        "'pooler_output'?) of a ModelOutput with last_hidden_state, pooler_output; allowed: "
        "output='last_hidden_state', … to pick from it",
    ),
    "a part of a tensor": (
        reading(bm.Tap("pooler", output=0)),
        "tap 'a' (pooler): output: found 0 of a Tensor; allowed: none, for a tensor",
    ),
    "a part that is no tensor": (
        reading(
            bm.Tap("", output=0),
            Returning := type("Returning", (nn.Module,), {"forward": lambda self, x: (None, x)})(),
            lambda model, ids: model(ids),
        ),
        "tap 'a' (the model itself), output 0: found a NoneType; allowed: a tensor",
    ),
    "channels that come last": (
        reading(bm.Tap("encoder.layer.0", output=0)),
        "tap 'a' (encoder.layer.0): found shape (2, 7, 6), which ends with the 6 channels of its "
        "last layer; allowed: layout='tokens' or 'channels_last' if they come last, "
        "'channels_first' if not",
    ),
    "tokens of an image": (
        lambda: bm.tap(ResNet(), {"a": bm.Tap("layer1", layout="tokens")})(images(2)),
        "tap 'a' (layer1): found shape (2, 4, 8, 8) from 2 items; allowed: tokens (n, T, C) with "
        "n = 2",
    ),
    "a feature of the batch": (
        lambda: bm.tap(nn.Flatten(0, 1), {"a": ""})(images(2)),
        "tap 'a' (the model itself): found shape (6, 16, 16) from 2 items; allowed: "
        "channels_first (n, C), (n, C, T), (n, C, H, W) or (n, C, T, H, W) with n = 2, or another "
        "layout= or output=",
    ),
    "a grid of another size": (
        reading(bm.Tap("encoder.layer.0", output=0, layout="tokens", skip=1, grid=(2, 4))),
        "tap 'a' (encoder.layer.0): found 7 tokens, 6 of them behind skip=1; allowed: 8 for "
        "grid=(2, 4)",
    ),
    "more skipped than there are": (
        reading(bm.Tap("encoder.layer.0", output=0, layout="tokens", skip=7)),
        "tap 'a' (encoder.layer.0): found 7 tokens, 0 of them behind skip=7; allowed: more than 7",
    ),
    "complex numbers": (
        lambda: bm.tap(nn.Identity(), {"a": ""})(torch.ones(2, 3, dtype=torch.complex64)),
        "tap 'a' (the model itself): found a tensor that is nested, sparse or complex; allowed: a "
        "plain tensor of real numbers",
    ),
    "inputs that the model cannot read": (
        lambda: bm.Modality("Text", bm.tap(Bert(), BERT, call=with_mask), torch.full((9, 7), 99)),
        "backbone of 'Text': found IndexError: index out of range in self; allowed: a model that "
        "reads inputs of shape (2, 7) of torch.int64",
    ),
    "dropout in evaluation": (
        lambda: bm.Modality("A", bm.tap(Dropping(), {"a": ""}), torch.ones(9, 50)),
        "feature 'a': found two values for an item that was given twice; allowed: one: items are "
        "read each alone, along the first axis, without dropout",
    ),
    "a video pooled as an image": (
        lambda: bm.Modality("A", bm.tap(nn.Identity(), {"a": ""}), torch.ones(9, 2, 3, 4, 4)),
        "A: pooling of 'a': found 'grid' for 3 axes behind (n, C); allowed: 'time'",
    ),
    "no channels of a backbone that is no tap": (
        lambda: bm.Modality("A", nn.Identity(), images()),
        "A: channels: found None; allowed: feature names, each with its number of channels "
        "(bm.tap measures them)",
    ),
    "channels in another order than taps": (
        lambda: bm.Modality("A", bm.tap(ResNet(), RESNET), {"Image_2": 8, "Image_1": 4}, images()),
        "A: channels: found Image_2, Image_1; allowed: Image_1, Image_2, Image_3, as tapped",
    ),
    "channels without inputs": (
        lambda: bm.Modality("A", bm.tap(ResNet(), RESNET), {"Image_1": 4}),
        "Modality.inputs: found None; allowed: a Tensor or a FileInputs or a DatasetInputs or a "
        "FeatureArrays",
    ),
    "a scripted model": (
        lambda: bm.tap(torch.jit.script(nn.Linear(2, 2)), {"a": ""}),
        "model: found a ScriptModule, which calls no hooks; allowed: the model itself",
    ),
    "no inputs": (
        lambda: image_modality(torch.ones(0, 3, 8, 8)),
        "Image: inputs: found no items; allowed: (items, …)",
    ),
    "an array as inputs": (
        lambda: image_modality(3),
        "Modality.inputs: found 3; allowed: a Tensor or a FileInputs or a DatasetInputs or a "
        "FeatureArrays",
    ),
    "an iterable data set": (
        lambda: image_modality(Endless()),
        "Image: data set: found Endless without item numbers; allowed: a map-style data set, "
        "with __len__ and __getitem__",
    ),
    "a data set without length": (
        lambda: image_modality(WithoutLength()),
        "Image: data set: found WithoutLength without length; allowed: a map-style data set, "
        "with __len__ and __getitem__",
    ),
    "an empty data set": (
        lambda: image_modality(Returns(lambda item: images()[item], 0)),
        "Image: data set: found no items; allowed: at least one",
    ),
    "a version that is a number": (
        lambda: bm.DatasetInputs(Photos(), version=3),
        "inputs: version: found 3; allowed: text, or None",
    ),
    "an exception of a data set": (
        data(broken),
        "Image, item 3: found KeyError: 'photo\\nthree' (test_tap.py, line {broken}); allowed: a "
        "tensor; bm.DataError leaves an item out",
    ),
    "items of other shapes": (
        data(with_item_3(torch.ones(3, 9, 9))),
        "Image, item 3: found shape (3, 9, 9) of torch.float32; allowed: shape (3, 16, 16) of "
        "torch.float32, as item 0 has",
    ),
    "items of other types": (
        data(with_item_3(torch.ones(3, 16, 16, dtype=torch.int64))),
        "Image, item 3: found shape (3, 16, 16) of torch.int64; allowed: shape (3, 16, 16) of "
        "torch.float32, as item 0 has",
    ),
    "NaN": (
        data(with_item_3(torch.full((3, 16, 16), float("nan")))),
        "Image, item 3: found NaN; allowed: finite numbers in float32",
    ),
    "an item that is no tensor": (
        data(with_item_3("photo.jpg")),
        "Image, item 3: found 'photo.jpg'; allowed: a tensor or array of numbers, or a tuple that "
        "begins with one",
    ),
    "an array of texts": (
        data(with_item_3(np.array(["a", "b"]))),
        "Image, item 3: found an array of <U1; allowed: a tensor or array of numbers, or a tuple "
        "that begins with one",
    ),
    "random augmentation": (
        data(lambda item: torch.rand(3, 16, 16)),
        "Image, item 0: found other values each time it is read; allowed: the same: no "
        "augmentation",
    ),
    "nothing that can be read": (
        lambda: image_modality(Photos(bad=range(N))),
        "Image: none of 40 items can be read: item 0: photo 0 is broken",
    ),
    "items in one modality alone": (
        lambda: own_task(image_modality(), text_modality(token_ids(30))),
        "modality 'Text': found 30 items; allowed: 40, as 'Image' has: one a sample",
    ),
    "labels of another number": (
        lambda: own_task(labels=LABELS[:30]),
        "labels: found 30 rows; allowed: 40 rows, as the features have",
    ),
    "a modality that is none": (
        lambda: own_task(ResNet(), text_modality()),
        "modalities[0]: found ResNet; allowed: a bm.Modality(…)",
    ),
    "no modalities": (
        lambda: bm.Task.from_modalities("own", [], LABELS),
        "modalities: found []; allowed: a list of bm.Modality(…)",
    ),
    "a modality without name": (
        lambda: own_task(image_modality(), replace(text_modality(), name="")),
        "modalities[1]: name: found ''; allowed: printable text of 1 to 100 characters",
    ),
    "inputs that are NaN": (
        lambda: image_modality(images() * torch.nan),
        "feature 'Image_1': found NaN or infinity; allowed: finite numbers",
    ),
    "a data set of negative length": (
        lambda: bm.DatasetInputs(Returns(lambda item: images()[item], -1)),
        "inputs: data set: found Returns without length; allowed: a map-style data set, with "
        "__len__ and __getitem__",
    ),
    "one modality": (
        lambda: own_task(image_modality()),
        "own: found 1 modality; allowed: two or more",
    ),
    "settings as a dict": (
        lambda: own_task(config={"L": 2}),
        "config: found {'L': 2}; allowed: bm.Settings(…)",
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line(what):
    make, message = WRONG[what]
    line = broken.__code__.co_firstlineno + 2
    with pytest.raises(bm.BmnasError) as error:
        make()
    assert str(error.value) == message.replace("{broken}", str(line))


@pytest.mark.filterwarnings("ignore:Got pickle error")
def test_a_data_set_that_cannot_be_sent_to_workers_is_refused_in_one_line():
    photos = bm.DatasetInputs(Returns(lambda item: images()[item]), "1")
    task = own_task(image_modality(photos), text_modality())
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with pytest.raises(bm.DataError) as error:
            bank_of(task, workers=1)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("inputs: found inputs that cannot be pickled for worker")


def test_tapped_prints_its_taps():
    assert "Image_2: Tap(module='layer3'" in repr(bm.tap(ResNet(), RESNET))
    assert isinstance(bm.tap(ResNet(), RESNET), Tapped)
