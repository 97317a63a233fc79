"""Tasks on pairs of a written and a spoken digit, whose label follows from them by a rule.

Two knobs make a task harder: the share of the images' variance that is kept, and the noise added
to the speech.
"""

import hashlib
import json
import os
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor, nn

from ..backbones.backbone import TRAINED_HERE, ConvBackbone
from ..backbones.item_training import SHIFT, train_on_items
from ..config import SearchSettings, Settings
from ..errors import in_line, quoted
from ..runtime import as_seed, generator
from ..tensor_files import read_tensors, write_tensors
from .audio import add_noise, log_mel
from .files import asset, cache_folder
from .inputs import DataError
from .rules import RULES, DigitPair
from .task import SPLITS, Modality, Split, Task, TaskError

FORMAT = "bmnas-backbones/1"
#: How each backbone is trained alone.
PRETRAINING = Settings(epochs=12, batch_size=64, max_lr=3e-3, weight_decay=1e-2)


@dataclass(frozen=True)
class DigitData:
    """Images and speech of digits with the items of each split."""

    images: Tensor  # (n, 1, H, W) in 0 … 1
    image_digits: Tensor  # (n,)
    image_split: dict[str, Tensor]  # split name → item numbers; no item is in two splits
    speech: Tensor  # (m, MELS, FRAMES), mel power
    spoken: tuple[DigitPair, ...]  # m, what is known of each clip; written is 0
    speech_split: dict[str, Tensor]
    version: str  # hash of the files it was read from

    @property
    def speech_digits(self) -> Tensor:
        """The digit of each clip: (m,)."""
        return torch.tensor([clip.spoken for clip in self.spoken])


@dataclass(frozen=True, kw_only=True)
class PairRecipe:
    """What a task of digits does under a rule, or under several.

    Attributes:
        name: of the file with the backbones' weights.
        image_energy, snr_db: defaults of the two knobs.
        sizes: split name → number of pairs.
        config: settings of search and training.
        search_config: what differs in the search, and how it ends.
        embedding: size of the vector that each backbone ends with; None for three blocks alone.
        epochs: how long each backbone is trained alone; by default as :data:`PRETRAINING` says.
    """

    name: str
    image_energy: float
    snr_db: float
    sizes: dict[str, int]
    config: Settings
    search_config: SearchSettings
    embedding: int | None = None
    epochs: int | None = None


def pair_task(
    name: str,
    rule: str,
    data: DigitData,
    recipe: PairRecipe,
    *,
    image_energy: float | None = None,
    snr_db: float | None = None,
    backbone_seed: int = 0,
    train_pairs: int | None = None,
    protocol: str | None = None,
    data_seed: int = 0,
) -> Task:
    """The task on ``data`` under a rule, with the options of ``load_task``.

    ``train_pairs`` takes only the first training pairs, or makes more of the same items.
    ``protocol`` names splits other than the usual ones, and ``data_seed`` fixes pairs and noise.
    Raises TaskError for an unknown rule, one that fails or returns no labels, or one that allows no
    pair of a split; and for a knob out of range.
    """
    image_energy = recipe.image_energy if image_energy is None else image_energy
    snr_db = recipe.snr_db if snr_db is None else snr_db
    if type(image_energy) not in (int, float) or not 0 < image_energy <= 1:
        raise TaskError("image_energy", repr(image_energy), "above 0, at most 1")
    if type(snr_db) not in (int, float) or not snr_db >= -100:
        raise TaskError("snr_db", repr(snr_db), "decibels of -100 or more, or inf")
    if train_pairs is not None and (type(train_pairs) is not int or train_pairs < 2):
        raise TaskError("train_pairs", repr(train_pairs), "an integer of 2 or more")
    labels, class_names = label_pairs(rule, data.spoken)
    images = keep_energy(data.images, image_energy, data.image_split["train"])
    power = add_noise(data.speech, snr_db, generator(data_seed, "noise"))
    speech = log_mel(power).unsqueeze(1)
    backbones = (ConvBackbone(embedding=recipe.embedding) for _ in range(2))
    modalities = (
        Modality.numbered("Image", next(backbones), images, classes=data.image_digits),
        Modality.numbered("Audio", next(backbones), speech, classes=data.speech_digits),
    )
    sizes = recipe.sizes | {"train": max(recipe.sizes["train"], train_pairs or 0)}
    made = (make_pairs(data, split, rule, labels, sizes[split], data_seed) for split in SPLITS)
    splits = dict(zip(SPLITS, made, strict=True))
    notes = {"image_energy": float(image_energy), "snr_db": float(snr_db), "data": data.version}
    notes["backbones"] = recipe.name
    if seed := as_seed(backbone_seed):
        notes["backbone_seed"] = seed
    if data_seed:
        notes["data_seed"] = as_seed(data_seed)
    if protocol:
        notes["protocol"] = protocol
    alone = replace(PRETRAINING, epochs=recipe.epochs or PRETRAINING.epochs)
    task = Task(
        name, rule, len(class_names), "accuracy", modalities, splits,
        recipe.config, recipe.search_config, notes, dict.fromkeys(("Image", "Audio"), alone),
        protocol=protocol, class_names=class_names,
    )  # fmt: skip
    _load_or_train(task)
    for backbone in _backbones(task).values():
        backbone._origin = TRAINED_HERE
    if train_pairs is None:
        return task
    train = splits["train"]
    first = Split("train", train.index[:train_pairs], train.labels[:train_pairs])
    return replace(task, splits={**splits, "train": first})  # with the same backbones


def label_pairs(rule: str, spoken: tuple[DigitPair, ...]) -> tuple[Tensor, tuple[str, ...]]:
    """Every written digit with every clip under a rule: class (10, m), or -1 if it is not allowed.

    Also the names of the classes. Raises TaskError as :func:`pair_task`.
    """
    function, place = RULES[rule], f"rule {rule!r}"
    values = []
    for written in range(10):
        for clip in spoken:
            pair = replace(clip, written=written)
            try:
                value = function(pair)
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
                raise TaskError(f"{place}: failed for {pair} ({found})") from error
            if isinstance(value, Integral):
                value = int(value)
            elif not isinstance(value, str | None):
                allowed = "a whole number, a text or None"
                raise TaskError(f"{place}: label of {pair}", quoted(value), allowed)
            values.append(value)
    found = {value for value in values if value is not None}
    if len(set(map(type, found))) > 1:
        raise TaskError(f"{place}: labels", "numbers and texts", "only one of both")
    if len(found) < 2:
        raise TaskError(f"{place}: labels", ", ".join(map(repr, found)) or None, "two or more")
    number = {value: k for k, value in enumerate(sorted(found))} | {None: -1}
    labels = torch.tensor([number[value] for value in values]).reshape(10, -1)
    return labels, tuple(map(str, sorted(found)))


def make_pairs(
    data: DigitData, split: str, rule: str, labels: Tensor, n: int, seed: int = 0
) -> Split:
    """``n`` random pairs within a split, each image and each recording about equally often.

    ``labels`` are those of :func:`label_pairs`. Digits that may be paired with the same recordings
    share these out among themselves.
    """
    random = generator(seed, "pairs", split, rule)
    images, speech = data.image_split[split], data.speech_split[split]
    alike = defaultdict(list)  # recordings that are allowed → the digits that are, with them
    for digit, allowed in enumerate((labels[:, speech] >= 0).tolist()):
        if any(allowed):
            alike[tuple(allowed)].append(digit)
    usable = torch.tensor([digit for digits in alike.values() for digit in digits])
    images = images[torch.isin(data.image_digits[images], usable)]
    if not len(images):
        raise TaskError(f"rule {rule!r}: allows no pair of split {split!r}")
    chosen = _in_turn(images, n, random)
    digits, partners = data.image_digits[chosen], torch.empty_like(chosen)
    for allowed, group in alike.items():
        rows = torch.isin(digits, torch.tensor(group)).nonzero()[:, 0]
        partners[rows] = _in_turn(speech[torch.tensor(allowed)], len(rows), random)
    return Split(split, torch.stack([chosen, partners], dim=1), labels[digits, partners])


def _in_turn(items: Tensor, n: int, random: torch.Generator) -> Tensor:
    """``n`` of ``items``, each once before any comes again, shuffled in every round: (n,)."""
    rounds = range(-(-n // len(items)))
    return torch.cat(
        [items[:0], *(items[torch.randperm(len(items), generator=random)] for _ in rounds)]
    )[:n]


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
    return asset(f"{task.name}/backbones_{task.notes['backbones']}.safetensors", missing_ok=True)


def save_backbones(task: Task, path: str | os.PathLike) -> Path:
    """Write the weights of a task's backbones as safetensors, with what fixes them as header."""
    write_tensors(path, _backbones(task).state_dict(), _header(task))
    return Path(path)


def load_backbones(task: Task, path: str | os.PathLike) -> bool:
    """Read weights into a task's backbones; False if they are of another task or other knobs.

    Raises DataError for a file that is damaged or holds other weights.
    """
    wanted, what = _header(task), "weights of this task's backbones"
    try:
        same, tensors = read_tensors(
            path, FORMAT, DataError, what, lambda header, _: header == wanted
        )
        if same:
            _backbones(task).load_state_dict(tensors)
    except (DataError, RuntimeError) as error:
        why = str(error) if isinstance(error, DataError) else f"{path}: {in_line(error)}"
        raise DataError(f"{why}; delete the file to have them trained again") from None
    return same


def _load_or_train(task: Task) -> None:
    """Take weights from the kit's assets or the cache, or train them now and cache them."""
    key = hashlib.sha256(json.dumps(_header(task), sort_keys=True).encode()).hexdigest()[:16]
    cached = cache_folder() / "backbones" / f"{key}.safetensors"
    for path in (backbones_file(task), cached):
        if path.exists() and load_backbones(task, path):
            return
    for modality in task.modalities:
        config = task.backbone_config[modality.name]
        train_on_items(task, modality, config, seed=task.notes.get("backbone_seed", 0))
    try:
        save_backbones(task, cached)
    except OSError as error:
        warnings.warn(f"{cached}: backbones trained but not kept: {error}", stacklevel=2)


def _backbones(task: Task) -> nn.ModuleDict:
    return nn.ModuleDict({modality.name: modality.backbone for modality in task.modalities})


def _header(task: Task) -> dict[str, object]:
    """What determines the weights, as it is read from JSON."""
    notes = dict(task.notes)
    recipe = {"epochs": task.backbone_config["Image"].epochs, "shift": SHIFT}
    described = {"task": task.name, "rule": notes.pop("backbones"), **notes, "pretraining": recipe}
    return json.loads(json.dumps({"format": FORMAT, **described}))
