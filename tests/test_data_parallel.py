"""Two processes of accelerate train what one process trains with half of each batch at a time."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bmnas_core as bm
from bmnas_core.data_parallel import Processes, processes
from bmnas_core.train import _micro_batches

#: Trains a backbone alone, one that learns its items, and a fusion network with its backbones.
SCRIPT = """
import json, os, sys
from dataclasses import replace
import torch
sys.path.insert(0, TESTS)
torch.set_num_threads(1)
from tiny import TinyClassifier, tiny_task
import bmnas_core as bm
from bmnas_core.data_parallel import processes


def trained(half):
    how = {"device": "cpu", "progress": False, "seed": 4}
    task, found = tiny_task(), {}
    # Each process begins with other weights, and the first one's count.
    backbone = TinyClassifier((5, 6), seed=processes(torch.device("cpu")).index)
    first, second = task.modalities
    task = replace(task, modalities=(replace(first, backbone=backbone), second))
    quiet = {"dropout": 0.0, "epochs": 2, "batch_size": 16, "micro_batch": half}
    net, found["labels"] = bm.train_backbone(task, "Image", bm.TrainConfig(**quiet), **how)
    weights = [net.state_dict()]
    if half is None:
        net, found["items"] = bm.train_backbone(task, "Audio", bm.TrainConfig(**quiet), **how)
    task = tiny_task()
    genotype = bm.Genotype.from_json(GENOTYPE)
    config = bm.TrainConfig(**quiet, finetune=True, data="train")
    net, found["finetune"] = bm.train(genotype, task, config, **how)
    weights.append(net.state_dict())
    found["weights"] = [
        {k: v.tolist() for k, v in own.items() if "running" not in k} for own in weights
    ]
    return found


def main(*_):
    team = processes(torch.device("cpu"))
    found = trained(None if team.count > 1 else 8)
    name = team.index if team.count > 1 else "alone"
    with open(os.path.join(OUT, f"{name}.json"), "w") as file:
        json.dump(found, file)
"""

GENOTYPE = {
    "format": "bmnas-genotype/1",
    "features": ["Image_1", "Image_2", "Audio_1", "Audio_2"],
    "cells": [
        {
            "inputs": ["Image_2", "Audio_2"],
            "steps": [{"op": "concat_fc", "inputs": ["X", "Y"]}],
        }
    ],
}


def run(folder: Path, end: str, *launcher: str) -> dict[str, dict]:
    """What each process of a script found."""
    folder.mkdir()
    places = {"TESTS": str(Path(__file__).parent), "OUT": str(folder)}
    places["GENOTYPE"] = json.dumps(GENOTYPE)
    head = "\n".join(f"{name} = {value!r}" for name, value in places.items())
    script = folder / "script.py"
    script.write_text(f"{head}\n{SCRIPT}\n{end}\n")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, *launcher, str(script)]
    subprocess.run(words, check=True, env=environment, capture_output=True, timeout=300)
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_half_batches(tmp_path):
    alone = run(tmp_path / "one", "main()")["alone"]
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    place = ("--master-addr", "127.0.0.1", "--master-port", free_port())
    launched = run(tmp_path / "launched", "main()", *launch, *place)
    end = (
        "if __name__ == '__main__':\n    from accelerate import debug_launcher\n"
        "    debug_launcher(main, num_processes=2)"
    )
    forked = run(tmp_path / "forked", end)
    for team in (launched, forked):
        assert team.keys() == {"0", "1"}
        assert team["0"]["weights"] == team["1"]["weights"]
        for name in ("labels", "items", "finetune"):
            for key in ("train_loss", "validation_score"):
                first, second = ([r[key] for r in team[rank][name]] for rank in "01")
                assert first == second
        for own, expected in zip(team["0"]["weights"], alone["weights"], strict=True):
            assert own.keys() == expected.keys()
            for name, values in own.items():
                found, wanted = torch.tensor(values), torch.tensor(expected[name])
                torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        for name in ("labels", "finetune"):
            losses = ([r["train_loss"] for r in side[name]] for side in (team["0"], alone))
            assert next(losses) == pytest.approx(next(losses), abs=1e-5)


def test_without_accelerates_launcher_there_is_one_process(monkeypatch):
    assert processes(torch.device("cpu")) == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some schedulers set it for other ends
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert processes(torch.device("cpu")) == Processes(0, 1)


def test_several_processes_need_accelerate(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    message = r"training: found 2 processes \(WORLD_SIZE\); allowed: one, or accelerate"
    with pytest.raises(bm.BmnasError, match=message):
        processes(torch.device("cpu"))


@pytest.mark.parametrize(("n", "size", "count"), [(16, None, 2), (17, 8, 2), (30, 7, 4), (9, 3, 3)])
def test_processes_share_every_batch_evenly(n, size, count):
    parts = _micro_batches(torch.arange(n), size, count)
    shares = [Processes(k, count).share(parts) for k in range(count)]
    assert len({len(own) for own in shares}) == 1
    assert sorted(int(row) for own in shares for part in own for row in part) == list(range(n))
    assert size is None or max(map(len, parts)) <= size
