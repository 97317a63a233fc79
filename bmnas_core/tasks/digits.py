"""``digits``: the embedded task, scikit-learn's handwriting with synthetic speech.

The speech is not a recording of people: ``assets/digits/build_speech.py`` made it with espeak-ng.
"""

import hashlib
from functools import cache

import numpy as np
import torch

from ..config import SearchSettings, Settings
from ..runtime import generator
from .audio import FRAMES, MELS
from .files import DATA_SETS
from .pairs import RULES, DigitData, pair_task
from .task import SPLITS, Task, register_task

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DECIBELS = 80.0
SIZES = {"train": 3000, "validation": 1500, "test": 1500}
DEFAULTS = {"same": (0.25, -10.0), "sum": (0.75, 20.0)}


@register_task("digits")
def digits(
    rule: str = "sum", image_energy: float | None = None, snr_db: float | None = None
) -> Task:
    """A written and a spoken digit, small enough to come with the kit and run in minutes.

    3,000 training, 1,500 validation and 1,500 test pairs of 1,797 images and 1,200 clips. The
    splits share no image and no voice.

    Args:
        rule: ``"same"`` digit (10 classes) or ``"sum"`` of the two (19 classes).
        image_energy: share of the images' variance that is kept; 0.25 for same, 0.75 for sum.
        snr_db: speech to white noise in decibels; by default -10 for same, 20 for sum.

    Raises TaskError for an unknown rule or a knob out of range.
    """
    return pair_task(
        "digits", _read(), rule, image_energy, snr_db, DEFAULTS, SIZES,
        config=dict.fromkeys(
            RULES,
            Settings(
                C=32, L=4, N=1, M=2, epochs=15, batch_size=64, dropout=0.1, max_lr=3e-3,
                min_lr=1e-6, weight_decay=1e-4, restart=1,
            ),
        ),
        # A hypernet trained for longer memorises its samples, and α turns from late features.
        search_config=SearchSettings(
            epochs=3, selection="successive_halving", rungs=((24, 3), (8, 7))
        ),
    )  # fmt: skip


@cache
def _read() -> DigitData:
    from sklearn.datasets import load_digits

    written = load_digits()
    small = torch.from_numpy(written.images).float().unsqueeze(1) / 16
    images = torch.nn.functional.interpolate(small, (16, 16), mode="bilinear")
    order = torch.randperm(len(images), generator=generator(0, "digits images"))
    parts = order.tensor_split((int(0.6 * len(images)), int(0.8 * len(images))))
    path = DATA_SETS["digits"].require() / "speech.npz"
    with np.load(path, allow_pickle=False) as file:
        speech = dict(file)
    decibels = torch.from_numpy(speech["decibels"]).float() / 255 * DECIBELS - DECIBELS
    voices = torch.randperm(len(speech["voices"]), generator=generator(0, "digits voices"))
    part = torch.empty_like(voices)
    part[voices] = (torch.arange(len(voices)) * 5 // len(voices) - 2).clamp(min=0)
    part = part[torch.from_numpy(speech["voice"]).long()]
    return DigitData(
        images=images,
        image_digits=torch.from_numpy(written.target).long(),
        image_split=dict(zip(SPLITS, parts, strict=True)),
        speech=10 ** (decibels.reshape(-1, MELS, FRAMES) / 10),
        speech_digits=torch.from_numpy(speech["digit"]).long(),
        speech_split={name: (part == i).nonzero()[:, 0] for i, name in enumerate(SPLITS)},
        version=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
    )
