"""Tasks on pairs of a written and a spoken digit.

Rule *same*: both show the same digit, which is the label. Rule *sum*: they are independent and
their sum is the label, so that neither modality alone says much and fusion decides. Two knobs
make it harder: how much of the images' energy is kept, and how much noise the speech is in.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..backbones.conv import ConvBackbone
from ..backbones.pretrain import pretrain
from ..config import Settings, generator, writing
from .audio import add_noise, log_mel
from .files import asset, cache_folder
from .task import SPLITS, DataError, Modality, Split, Task, TaskError

RULES = {"same": 10, "sum": 19}
CHANNELS = (16, 32, 64)


@dataclass(frozen=True)
class DigitData:
    """Images and speech of digits with the items of each split.

    Attributes:
        images: (n, 1, H, W) in 0 … 1; speech: (m, MELS, FRAMES) mel power.
        image_digits: (n,); speech_digits: (m,).
        image_split, speech_split: split name → item numbers; no item is in two splits.
        version: hash of the files it was read from.
    """

    images: Tensor
    image_digits: Tensor
    image_split: dict[str, Tensor]
    speech: Tensor
    speech_digits: Tensor
    speech_split: dict[str, Tensor]
    version: str


def pair_task(
    name: str,
    data: DigitData,
    *,
    rule: str,
    image_energy: float,
    snr_db: float,
    sizes: dict[str, int],
    config: Settings,
) -> Task:
    """The task on ``data``; ``sizes`` are the pairs of each split.

    Raises:
        TaskError: for an unknown rule or a knob out of range.
    """
    if rule not in RULES:
        raise TaskError(f"rule: found {rule!r}; allowed: {', '.join(map(repr, RULES))}")
    if not isinstance(image_energy, (int, float)) or not 0 < image_energy <= 1:
        raise TaskError(f"image_energy: found {image_energy!r}; allowed: above 0, at most 1")
    if not isinstance(snr_db, (int, float)) or snr_db != snr_db or snr_db == -float("inf"):
        raise TaskError(f"snr_db: found {snr_db!r}; allowed: a number of decibels, or inf")
    images = keep_energy(data.images, image_energy, data.image_split["train"])
    power = add_noise(data.speech, snr_db, generator(0, "noise"))
    speech = log_mel(power).unsqueeze(1)
    knobs = {"image_energy": float(image_energy), "snr_db": float(snr_db)}
    streams = {
        "Image": (images, data.image_digits, data.image_split),
        "Audio": (speech, data.speech_digits, data.speech_split),
    }
    header = {**knobs, "data": data.version}
    backbones = pretrained_backbones(f"{name}/backbones_{rule}.safetensors", streams, header)
    modalities = tuple(
        Modality(
            stream,
            backbones[stream],
            {f"{stream}_{i + 1}": c for i, c in enumerate(CHANNELS)},
            inputs,
            classes=digits,
        )
        for stream, (inputs, digits, _) in streams.items()
    )
    splits = {split: make_pairs(data, split, rule, sizes[split]) for split in SPLITS}
    return Task(name, rule, RULES[rule], "accuracy", modalities, splits, config, knobs)


def make_pairs(data: DigitData, split: str, rule: str, n: int) -> Split:
    """``n`` pairs within a split: every image equally often, with a random fitting recording."""
    random = generator(0, "pairs", split, rule)
    images, speech = data.image_split[split], data.speech_split[split]
    if not len(images) or not len(speech):
        raise TaskError(f"split {split!r} is empty: {len(images)} images, {len(speech)} recordings")
    rounds = [
        images[torch.randperm(len(images), generator=random)] for _ in range(-(-n // len(images)))
    ]
    chosen = torch.cat(rounds)[:n]
    digits = data.image_digits[chosen]
    partners = torch.empty(n, dtype=torch.long)
    for digit in range(10) if rule == "same" else (None,):
        rows = (digits == digit).nonzero()[:, 0] if rule == "same" else torch.arange(n)
        pool = speech[data.speech_digits[speech] == digit] if rule == "same" else speech
        partners[rows] = pool[torch.randint(len(pool), (len(rows),), generator=random)]
    labels = digits if rule == "same" else digits + data.speech_digits[partners]
    return Split(split, torch.stack([chosen, partners], dim=1), labels)


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


def pretrained_backbones(
    name: str, streams: dict[str, tuple[Tensor, Tensor, dict[str, Tensor]]], header: dict
) -> dict[str, nn.Module]:
    """One trained backbone a stream: from the kit's assets, from the cache, or trained now.

    Args:
        name: asset, e.g. ``"digits/backbones_sum.safetensors"``.
        streams: modality name → inputs, classes and split items.
        header: knobs and version of the data; only weights trained on the same are taken.
    """
    text = json.dumps(header, sort_keys=True)
    key = hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:16]
    cached = cache_folder() / "backbones" / f"{key}.safetensors"
    for path in (asset(name, missing_ok=True), cached):
        backbones = path and load_backbones(path, streams, text)
        if backbones:
            return backbones
    backbones = {
        stream: pretrain(ConvBackbone(CHANNELS), inputs, classes, split["train"], name=stream)
        for stream, (inputs, classes, split) in streams.items()
    }
    save_backbones(cached, backbones, text)
    return backbones


def save_backbones(path, backbones: dict[str, nn.Module], header: str) -> None:
    """Write backbones' weights as safetensors, with what they were trained on as header."""
    weights = {
        f"{stream}.{k}": v.contiguous()
        for stream, backbone in backbones.items()
        for k, v in backbone.state_dict().items()
    }
    with writing(path) as beside:
        save_file(weights, beside, {"bmnas": header})


def load_backbones(path, streams, header: str) -> dict[str, nn.Module] | None:
    """Backbones from a file, or None if there is no file or it was trained on something else.

    Raises:
        DataError: for a file that is damaged or holds other weights.
    """
    if not path.exists():
        return None
    backbones = {stream: ConvBackbone(CHANNELS) for stream in streams}
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("bmnas") != header:
                return None
            weights = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        for stream, backbone in backbones.items():
            prefix = f"{stream}."
            own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            backbone.load_state_dict(own)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DataError(f"{path}: found no weights of a ConvBackbone ({error})") from None
    return {stream: backbone.eval() for stream, backbone in backbones.items()}
