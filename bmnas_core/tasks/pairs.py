"""Tasks on pairs of a written and a spoken digit.

Rule *same*: both are the same digit, which is the label. Rule *sum*: the two are independent and
their sum is the label, so neither modality alone says much and fusion decides. Two knobs make a
task harder: the share of the images' variance that is kept, and the noise added to the speech.
"""

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..backbones.backbone import ConvBackbone
from ..backbones.item_training import SHIFT, train_on_items
from ..config import SearchSettings, Settings
from ..runtime import generator
from ..storage import write_tensors
from .audio import add_noise, log_mel
from .files import asset, cache_folder
from .inputs import DataError
from .task import SPLITS, Modality, Split, Task, TaskError

RULES = {"same": 10, "sum": 19}
#: How each backbone is trained alone.
PRETRAINING = Settings(epochs=12, batch_size=64, max_lr=3e-3, weight_decay=1e-2)


@dataclass(frozen=True)
class DigitData:
    """Images and speech of digits with the items of each split."""

    images: Tensor  # (n, 1, H, W) in 0 … 1
    image_digits: Tensor  # (n,)
    image_split: dict[str, Tensor]  # split name → item numbers; no item is in two splits
    speech: Tensor  # (m, MELS, FRAMES), mel power
    speech_digits: Tensor  # (m,)
    speech_split: dict[str, Tensor]
    version: str  # hash of the files it was read from


def pair_task(
    name: str,
    data: DigitData,
    rule: str,
    image_energy: float | None,
    snr_db: float | None,
    defaults: dict[str, tuple[float, float]],
    sizes: dict[str, int],
    *,
    config: dict[str, Settings],
    search_config: SearchSettings,
) -> Task:
    """The task on ``data``, with the options of ``load_task``.

    ``defaults``: rule → ``image_energy`` and ``snr_db``. ``sizes``: split name → number of pairs.
    ``config``: rule → settings.
    Raises TaskError for an unknown rule or a knob out of range.
    """
    if not isinstance(rule, str) or rule not in RULES:
        raise TaskError("rule", repr(rule), ", ".join(map(repr, RULES)))
    image_energy = defaults[rule][0] if image_energy is None else image_energy
    snr_db = defaults[rule][1] if snr_db is None else snr_db
    if type(image_energy) not in (int, float) or not 0 < image_energy <= 1:
        raise TaskError("image_energy", repr(image_energy), "above 0, at most 1")
    if type(snr_db) not in (int, float) or not snr_db >= -100:
        raise TaskError("snr_db", repr(snr_db), "decibels of -100 or more, or inf")
    images = keep_energy(data.images, image_energy, data.image_split["train"])
    power = add_noise(data.speech, snr_db, generator(0, "noise"))
    speech = log_mel(power).unsqueeze(1)
    modalities = (
        Modality.numbered("Image", ConvBackbone(), images, classes=data.image_digits),
        Modality.numbered("Audio", ConvBackbone(), speech, classes=data.speech_digits),
    )
    splits = {split: make_pairs(data, split, rule, sizes[split]) for split in SPLITS}
    notes = {"image_energy": float(image_energy), "snr_db": float(snr_db), "data": data.version}
    alone = {modality.name: PRETRAINING for modality in modalities}
    task = Task(
        name, rule, RULES[rule], "accuracy", modalities, splits, config[rule], search_config,
        notes, alone,
    )  # fmt: skip
    _load_or_train(task)
    return task


def make_pairs(data: DigitData, split: str, rule: str, n: int) -> Split:
    """``n`` random pairs within a split, each image and each recording about equally often."""
    random = generator(0, "pairs", split, rule)
    images, speech = data.image_split[split], data.speech_split[split]
    chosen = _in_turn(images, n, random)
    digits = data.image_digits[chosen]
    if rule == "same":
        partners = torch.empty_like(chosen)
        for digit in range(10):
            rows = (digits == digit).nonzero()[:, 0]
            fitting = speech[data.speech_digits[speech] == digit]
            partners[rows] = _in_turn(fitting, len(rows), random)
    else:
        partners = _in_turn(speech, n, random)
        digits = digits + data.speech_digits[partners]
    return Split(split, torch.stack([chosen, partners], dim=1), digits)


def _in_turn(items: Tensor, n: int, random: torch.Generator) -> Tensor:
    """``n`` of ``items``, each once before any comes again, shuffled in every round: (n,)."""
    rounds = range(-(-n // len(items)))
    return torch.cat([items[torch.randperm(len(items), generator=random)] for _ in rounds])[:n]


def keep_energy(images: Tensor, share: float, train: Tensor) -> Tensor:
    """Project images on the leading principal components that hold ``share`` of the variance.

    Components are those of the ``train`` items alone. (n, 1, H, W) → (n, 1, H, W).
    """
    if share >= 1:
        return images
    flat = images.flatten(1).double()
    mean = flat[train].mean(0)
    values, vectors = torch.linalg.eigh((flat[train] - mean).T.cov())
    energy = values.flip(0).clamp(min=0).cumsum(0)
    kept = int((energy < share * energy[-1]).sum()) + 1
    basis = vectors.flip(1)[:, :kept]
    return ((flat - mean) @ basis @ basis.T + mean).float().reshape(images.shape)


def backbones_file(task: Task) -> Path:
    """The file of the kit with the weights of a task's backbones."""
    return asset(f"{task.name}/backbones_{task.rule}.safetensors", missing_ok=True)


def save_backbones(task: Task, path: str | os.PathLike) -> Path:
    """Write the weights of a task's backbones as safetensors, with the task's notes as header."""
    write_tensors(path, _backbones(task).state_dict(), _header(task))
    return Path(path)


def load_backbones(task: Task, path: str | os.PathLike) -> bool:
    """Read weights into a task's backbones; False if they are of another task or other knobs.

    Raises DataError for a file that is damaged or holds other weights.
    """
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("bmnas") != _header(task):
                return False
        _backbones(task).load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        found, remedy = f"no weights of this task's backbones ({error})", "delete the file to have"
        raise DataError(f"{path}: found {found}; {remedy} them trained again") from None
    return True


def _load_or_train(task: Task) -> None:
    """Take weights from the kit's assets or the cache, or train them now and cache them."""
    key = hashlib.sha256(_header(task).encode()).hexdigest()[:16]
    cached = cache_folder() / "backbones" / f"{key}.safetensors"
    for path in (backbones_file(task), cached):
        if path.exists() and load_backbones(task, path):
            return
    for modality in task.modalities:
        train_on_items(task, modality, PRETRAINING)
    try:
        save_backbones(task, cached)
    except OSError as error:
        warnings.warn(f"{cached}: backbones trained but not kept: {error}", stacklevel=2)


def _backbones(task: Task) -> nn.ModuleDict:
    return nn.ModuleDict({modality.name: modality.backbone for modality in task.modalities})


def _header(task: Task) -> str:
    """What determines the weights, as JSON."""
    recipe = {"epochs": PRETRAINING.epochs, "shift": SHIFT}
    described = {"task": task.name, "rule": task.rule, **task.notes, "pretraining": recipe}
    return json.dumps(described, sort_keys=True)
