"""Settings check themselves; files are whole; randomness is a function of seed and stream."""

import math
import os
import sys

import numpy as np
import pytest
import torch

from bmnas_core import ConfigError, DeviceError, SearchConfig, TrainConfig, resolve_device
from bmnas_core.config import Settings
from bmnas_core.errors import FileError
from bmnas_core.runtime import epoch_batches, generator, seeded
from bmnas_core.storage import atomic_write


@pytest.mark.parametrize("config", [SearchConfig(), SearchConfig(N=3, dropout=0), TrainConfig()])
def test_a_config_prints_and_round_trips_through_json(config):
    assert type(config).from_json(config.to_json()) == config
    assert eval(repr(config)) == config


@pytest.mark.parametrize(
    "cls, values, message",
    [
        (
            SearchConfig,
            {"relaxation": "pairs"},
            r"relaxation: found 'pairs' \(did you mean 'pair'\?\); allowed: 'paper', 'pair'",
        ),
        (SearchConfig, {"selection": 3}, "SearchConfig.selection: found 3; allowed: text"),
        (
            SearchConfig,
            {"operations": ["sum", "x"]},
            "operations: found 'x'; allowed: 'zero', 'sum'",
        ),
        (
            SearchConfig,
            {"operations": "sum"},
            "SearchConfig.operations: found 'sum'; allowed: a tuple",
        ),
        (SearchConfig, {"epochs": 0}, "SearchConfig.epochs: found 0; allowed: at least 1"),
        (SearchConfig, {"epochs": 2.5}, "SearchConfig.epochs: found 2.5; allowed: an integer"),
        (SearchConfig, {"epochs": True}, "SearchConfig.epochs: found True; allowed: an integer"),
        (SearchConfig, {"arch_lr": 0}, "SearchConfig.arch_lr: found 0.0; allowed: above 0.0"),
        (SearchConfig, {"arch_lr": math.nan}, "SearchConfig.arch_lr: found nan; allowed: a number"),
        (SearchConfig, {"arch_betas": (0.9,)}, r"arch_betas: found \(0.9,\); allowed: a tuple"),
        (
            TrainConfig,
            {"dropout": 1},
            "TrainConfig.dropout: found 1.0; allowed: at least 0.0, at m",
        ),
        (TrainConfig, {"data": "test"}, r"TrainConfig.data: found 'test'; allowed: 'train\+valid"),
        (TrainConfig, {"finetune": 1}, "TrainConfig.finetune: found 1; allowed: True or False"),
        (TrainConfig, {"max_lr": 10**400}, "TrainConfig.max_lr: found 10000000.*; allowed: a numb"),
    ],
)
def test_what_does_not_fit_a_field_is_refused_by_name(cls, values, message):
    with pytest.raises(ConfigError, match=message):
        cls(**values)


def test_numbers_of_numpy_become_pythons_own():
    config = SearchConfig(C=np.int64(8), max_lr=np.float32(0.5), arch_lr=np.float64(0.25))
    assert config == SearchConfig(C=8, max_lr=0.5, arch_lr=0.25)
    assert [type(value) for value in (config.C, config.max_lr, config.arch_lr)] == [
        int,
        float,
        float,
    ]
    assert SearchConfig.from_json(config.to_json()) == config


def test_unknown_fields_and_other_json_are_refused():
    message = r"SearchConfig: found field 'epoch' \(did you mean 'epochs'\?\); allowed: C, L, N, M"
    with pytest.raises(ConfigError, match=message):
        SearchConfig.from_dict({"epoch": 3})
    with pytest.raises(ConfigError, match=message):
        SearchConfig(epoch=3)
    with pytest.raises(ConfigError, match="SearchConfig: found field '3'; allowed: C, L, N, M"):
        SearchConfig.from_dict({3: "epochs"})
    with pytest.raises(ConfigError, match="SearchConfig: found no JSON"):
        SearchConfig.from_json("{")
    with pytest.raises(ConfigError, match=r"SearchConfig: found \[\]; allowed: an object"):
        SearchConfig.from_json("[]")


def test_a_config_is_frozen_and_gaps_are_filled_from_another():
    config = SearchConfig(epochs=3)
    with pytest.raises(AttributeError):
        config.epochs = 4
    filled = config.with_defaults(Settings(epochs=9, C=16))
    assert (filled.epochs, filled.C, filled.L) == (3, 16, None)


@pytest.mark.parametrize("device", ["gpu", "tpu", "cuda:99", 3.5, "", "meta"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(DeviceError, match="device: found .*; allowed: 'auto'"):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_one_is_refused(monkeypatch):
    for device in ("cuda", "auto"):
        with pytest.raises(DeviceError, match=r"'cuda', but this machine has 0 cuda device"):
            resolve_device(device)
        monkeypatch.setenv("BMNAS_DEVICE", "cuda")
    monkeypatch.setenv("BMNAS_DEVICE", "cpu")
    assert resolve_device() == torch.device("cpu")


@pytest.mark.parametrize(
    "cuda, mps, found", [(2, True, "cuda:0"), (0, True, "mps:0"), (0, False, "cpu")]
)
def test_auto_is_cuda_then_apples_mps_then_the_cpu(monkeypatch, cuda, mps, found):
    monkeypatch.delenv("BMNAS_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device() == resolve_device("auto") == torch.device(found)
    if mps:  # a tensor there says "mps:0"
        assert resolve_device("mps") == resolve_device("mps:0") == torch.device("mps:0")
    else:
        with pytest.raises(DeviceError, match="'mps', but this machine has 0 mps device"):
            resolve_device("mps")


def test_atomic_write_leaves_the_old_file_when_it_breaks_off(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as beside:
        beside.write_text("whole")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as beside:
        beside.write_text("ha")
        raise KeyboardInterrupt
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["file.txt"]


ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows says it otherwise")


@pytest.mark.parametrize(
    "path, found",
    [
        ("", "found no name, ''"),
        ("folder", "found the folder '.*folder'"),
        ("file/below", r"found '.*below' \(.*\)"),
        ("a\0b", r"found '.*' \(.*null"),
        pytest.param("n" * 300, r"found 'n+' \(File name too long\)", marks=ON_POSIX),
        (None, r"found 'None' \("),
        (3, r"found '3' \("),
    ],
)
def test_a_path_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, path, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    message = f"path: {found}.*; allowed: the path of a file that can be written"
    with pytest.raises(FileError, match=message), atomic_write(path):
        raise AssertionError("never reached")
    assert sorted(os.listdir()) == ["file", "folder"]


def test_fusion_models_are_independent_of_each_other_and_of_the_global_generator():
    def numbers(*stream):
        return torch.rand(3, generator=generator(*stream)).tolist()

    assert numbers(0, "a") == numbers(0, "a")
    assert len({tuple(numbers(*s)) for s in [(0, "a"), (0, "b"), (1, "a"), (0, "a", 1)]}) == 4
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(0, "block"):
        one = torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    with seeded(0, "block"):
        assert torch.equal(torch.rand(3), one)


@pytest.mark.parametrize("n, size", [(10, 4), (8, 4), (3, 8), (97, 96)])
def test_an_epoch_visits_every_sample_once_in_batches_of_nearly_one_size(n, size):
    batches = epoch_batches(n, size, 0, "train", 0)
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    lengths = [len(b) for b in batches]
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1
    again = epoch_batches(n, size, 0, "train", 0)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
