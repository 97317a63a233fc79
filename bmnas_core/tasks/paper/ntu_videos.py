"""NTU RGB+D's videos: frames spread evenly over a clip, normalised for the backbone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..files import package
from ..inputs import DataError, wrong
from .common import DEVIATION, MEAN


@dataclass(frozen=True)
class VideoReader:
    """Item → video for the Video backbone: (frames, size, size, 3), normalised as ImageNet is.

    Frames are spread evenly over the clip. With a generator they are spread over a central part of
    it, a random share of 50 to 100 %, as in the released code.

    Attributes:
        paths: one file per item.
        frames: number of frames.
        size: height and width in pixels.
        bgr: blue first; means and deviations are not reordered, as in the released code.
    """

    paths: tuple[str, ...] = field(repr=False)
    frames: int = 8
    size: int = 256
    bgr: bool = False

    def __call__(self, item: int, random: torch.Generator | None) -> Tensor:
        share = 1.0 if random is None else 1 - 0.5 * torch.rand((), generator=random).item()
        video = read_video(self.paths[item], self.frames, self.size, share)
        video = torch.from_numpy(video).flip(-1) if self.bgr else torch.from_numpy(video)
        return (video / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)


def read_video(
    path: str | os.PathLike, frames: int = 8, size: int = 256, share: float = 1.0
) -> np.ndarray:
    """Frames spread evenly over a video, resized to squares: (frames, size, size, 3) bytes, RGB.

    Frames of a short video are repeated. Only the chosen frames are kept in memory.

    Args:
        share: share of the clip's length, around its middle, over which they are spread.

    Raises:
        DataError: for a file that is no video, is empty, or is truncated: with less than nine
            tenths of the frames that its header claims.
    """
    av = package("av")
    try:
        count = claimed = _count_frames(av, path)
        while count:
            chosen = _spread(count, frames, share)
            kept, seen = _decode(av, path, set(chosen), size)
            if seen > chosen[-1]:
                return np.stack([kept[i] for i in chosen])
            if 10 * seen < 9 * claimed:
                raise wrong(path, f"{seen} frames", f"the {claimed} it claims")
            count = seen  # some codecs give fewer frames than the file has packets
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path}: found no video that can be decoded ({error})") from None
    raise DataError(f"{path}: found no video frame; allowed: at least one")


def _spread(count: int, frames: int, share: float) -> list[int]:
    first = (count - int(count * share)) // 2
    return np.linspace(first, count - 1 - first, frames).astype(int).tolist()


def _open(av, path: str | os.PathLike):
    file = av.open(os.fspath(path), metadata_errors="ignore")
    if not file.streams.video or file.streams.video[0].codec_context is None:
        file.close()
        raise DataError(f"{path}: found no video stream in a known codec; allowed: one")
    # The worker processes that load batches already keep every core busy.
    file.streams.video[0].codec_context.thread_count = 1
    return file


def _count_frames(av, path: str | os.PathLike) -> int:
    """The number of packets, counted without decoding, or of frames in the header if larger."""
    with _open(av, path) as file:
        stream = file.streams.video[0]
        return max(stream.frames, sum(packet.size > 0 for packet in file.demux(stream)))


def _decode(
    av, path: str | os.PathLike, wanted: set[int], size: int
) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames by number, and how many frames were decoded to reach the last of them."""
    kept: dict[int, np.ndarray] = {}
    resize = partial(av.video.reformatter.VideoReformatter().reformat, interpolation="BICUBIC")
    seen = 0
    with _open(av, path) as file:
        for seen, frame in enumerate(file.decode(video=0), 1):
            if seen - 1 in wanted:
                kept[seen - 1] = resize(frame, size, size, "rgb24").to_ndarray()
            if len(kept) == len(wanted):
                break
    return kept, seen
