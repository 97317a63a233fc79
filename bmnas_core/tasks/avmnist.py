"""``avmnist``: MNIST's test images and the Free Spoken Digit Dataset, from their own files."""

import hashlib
import io
import math
import wave
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import SearchSettings, Settings
from ..errors import in_line, quoted
from ..runtime import generator
from .audio import fit_length, mel_power
from .files import DAMAGED, DATA_SETS, read_bytes
from .inputs import DataError
from .pairs import DigitData, PairRecipe, pair_task
from .rules import DigitPair
from .task import SPLITS, Task, TaskError, register_task

IMAGES, LABELS = "mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"
DATA = DATA_SETS["avmnist"]
_SIZES = {"train": 6000, "validation": 2000, "test": 2000}
_SETTINGS = Settings(
    C=128, L=8, N=2, M=2, epochs=15, batch_size=96, dropout=0.1, max_lr=1e-3, min_lr=1e-6,
    weight_decay=1e-4, restart=1,
)  # fmt: skip
#: C and L are those with which BM-NAS is best on validation
#: (assets/results/avmnist_baselines_settings.csv).
_SAME = PairRecipe(
    name="same",
    image_energy=0.25,
    snr_db=0.0,
    sizes=_SIZES,
    config=_SETTINGS,
    # On ``digits`` a selection finds the right pair after three epochs as well as after seven.
    search_config=SearchSettings(epochs=3, selection="successive_halving"),
)
_SUM = replace(
    _SAME, name="sum", image_energy=0.75, snr_db=20.0, config=replace(_SETTINGS, C=256, L=1)
)
RECIPES = {"same": _SAME, "sum": _SUM}


@register_task("avmnist")
def avmnist(
    rule: str = "sum",
    image_energy: float | None = None,
    snr_db: float | None = None,
    backbone_seed: int = 0,
    train_pairs: int | None = None,
    unheard: str | None = None,
) -> Task:
    """A written and a spoken digit: 6,000 training, 2,000 validation and 2,000 test pairs.

    The splits share no image and no recording. The test recordings are the data set's own: index 0
    to 4 of each speaker and digit; validation has index 5 to 9.

    Options are those of :func:`~bmnas_core.tasks.digits.digits` and ``unheard``; for ``"same"``,
    ``snr_db`` is 0 by default, and rules of your own are treated like ``"sum"``. There is no rule
    *voice*: of the six speakers five are listed as men, so no split could have both kinds of voices
    unheard.

    Args:
        unheard: a speaker, such as ``"theo"``, who speaks all of the test split and nothing else.
            The next one of the six, by name, speaks the validation split. The backbones are
            trained on the other four at the first call.

    Raises DataError if a file is missing or damaged, TaskError for an unknown speaker and as digits
    does.
    """
    recipe = RECIPES.get(rule, RECIPES["sum"]) if isinstance(rule, str) else RECIPES["sum"]
    data, protocol = _read(DATA.require()), None
    if unheard is not None:
        data, protocol = _with_unheard(data, unheard), f"{unheard} unheard"
    return pair_task(
        "avmnist", rule, data, recipe,
        image_energy=image_energy, snr_db=snr_db, backbone_seed=backbone_seed,
        train_pairs=train_pairs, protocol=protocol,
    )  # fmt: skip


def _with_unheard(data: DigitData, test: str) -> DigitData:
    """The data with splits that share no speaker."""
    spoken = [clip.voice for clip in data.spoken]
    speakers = sorted(set(spoken))
    if test not in speakers:
        raise TaskError("unheard", quoted(test), ", ".join(map(repr, speakers)))
    validation = speakers[(speakers.index(test) + 1) % len(speakers)]
    split_of = dict.fromkeys(speakers, "train") | {validation: "validation", test: "test"}
    clips = [split_of[speaker] for speaker in spoken]
    parts = {
        split: torch.tensor([k for k, own in enumerate(clips) if own == split]) for split in SPLITS
    }
    return replace(data, speech_split=parts)


@cache
def _read(root: Path) -> DigitData:
    images = torch.from_numpy(read_idx(DATA.locate(IMAGES))).float().unsqueeze(1) / 255
    digits = torch.from_numpy(read_idx(DATA.locate(LABELS))).long()
    order = torch.randperm(len(images), generator=generator(0, "avmnist images"))
    names = sorted(p for p in DATA.manifest() if p.startswith("fsdd/"))
    waves = torch.stack([fit_length(read_wave(root / name)) for name in names])
    spoken = [Path(name).stem.split("_") for name in names]
    take = torch.tensor([int(index) for _, _, index in spoken])
    parts = take >= 10, (take >= 5) & (take < 10), take < 5
    return DigitData(
        images=images,
        image_digits=digits,
        image_split=dict(zip(SPLITS, order.split(list(_SIZES.values())), strict=True)),
        speech=mel_power(waves),
        spoken=tuple(DigitPair(0, int(digit), speaker) for digit, speaker, _ in spoken),
        speech_split={name: p.nonzero()[:, 0] for name, p in zip(SPLITS, parts, strict=True)},
        version=hashlib.sha256(repr(sorted(DATA.manifest().items())).encode()).hexdigest()[:16],
    )


#: Most axes of an IDX file; images have three.
MOST_AXES = 4


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes, packed by gzip as MNIST is, or not. Raises DataError."""
    content = read_bytes(path, unpack=True)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{path}: found no IDX file of bytes")
    if content[3] > MOST_AXES:
        raise DataError(path, f"{content[3]} axes", f"at most {MOST_AXES}")
    shape = tuple(np.frombuffer(content, ">u4", content[3], offset=4).tolist())
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    if len(data) != math.prod(shape):
        raise DataError(path, f"{len(data)} values", shape)
    return data.reshape(shape).copy()


def read_wave(path: Path) -> Tensor:
    """A mono 16-bit WAV file at 8 kHz: (samples,) in -1 … 1. Raises DataError."""
    packed = io.BytesIO(read_bytes(path))
    try:
        with wave.open(packed) as file:
            *kind, frames = file.getparams()[:4]
            content = file.readframes(frames)
    except (*DAMAGED, wave.Error) as error:
        raise DataError(f"{path}: found no WAV file ({in_line(error)})") from None
    if kind != [1, 2, 8000]:
        raise DataError(path, f"(channels, bytes, Hz) {tuple(kind)}", "(1, 2, 8000)")
    if len(content) != 2 * frames:
        raise DataError(path, f"{len(content)} bytes of sound", 2 * frames)
    return torch.from_numpy(np.frombuffer(content, "<i2").astype(np.float32) / 32768)
