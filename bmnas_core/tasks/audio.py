"""Log-mel spectrograms of sounds, and noise at a given level."""

import math

import torch
from torch import Tensor

SAMPLE_RATE = 8000
MELS, FRAMES, HOP, WINDOW = 32, 32, 160, 256
SAMPLES = (FRAMES - 1) * HOP
FLOOR_DB = -60.0


def mel_filters() -> Tensor:
    """Triangular filters, evenly spaced in mel from 0 to 4 kHz: (MELS, WINDOW // 2 + 1).

    Between the first and the last peak they add up to one at every frequency, so a spectrogram's
    columns add up to the power of the sound.
    """
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, MELS + 2) / 2595) - 1)
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def mel_power(wave: Tensor) -> Tensor:
    """Power in each mel band, 20 ms per frame: (SAMPLES,) or (n, SAMPLES) → (…, MELS, FRAMES)."""
    spectrum = torch.stft(wave, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    return mel_filters() @ spectrum.abs().square()


def fit_length(wave: Tensor) -> Tensor:
    """The first 0.62 s of a sound, padded with silence: (samples,) → (SAMPLES,)."""
    return torch.nn.functional.pad(wave[:SAMPLES], (0, max(0, SAMPLES - len(wave))))


def add_noise(power: Tensor, snr_db: float, generator: torch.Generator) -> Tensor:
    """Add white noise to mel spectrograms (n, MELS, FRAMES) at a signal-to-noise ratio in decibels.

    The signal's level is its mean power over the frames within 40 dB of the loudest. The expected
    power of two independent sounds is the sum of their powers, so spectrograms of noise are added;
    none at infinity.
    """
    if snr_db == math.inf:
        return power
    noise = mel_power(torch.randn(len(power), SAMPLES, generator=generator))
    frames = power.sum(1)
    loud = frames > 1e-4 * frames.amax(1, keepdim=True)
    signal_level = (frames * loud).sum(1) / loud.sum(1).clamp(min=1)
    scale = signal_level / noise.sum(1).mean(1) * 10 ** (-snr_db / 10)
    return power + scale[:, None, None] * noise


def log_mel(power: Tensor) -> Tensor:
    """Decibels relative to each spectrogram's peak, with -60 … 0 dB mapped to -1 … 1."""
    peak = power.flatten(1).amax(1)[:, None, None].clamp(min=1e-12)
    decibels = 10 * torch.log10(power / peak + 1e-12)
    return decibels.clamp(min=FLOOR_DB) / -FLOOR_DB * 2 + 1


def wave_of(spectrogram: Tensor, rounds: int = 60) -> Tensor:
    """A sound whose :func:`log_mel` is about this one: (MELS, FRAMES) → (SAMPLES,).

    Phases are those that a spectrogram lacks, found by Griffin and Lim (1984). The loudest sample
    is 0.9.
    """
    power = 10 ** ((spectrogram.clamp(-1, 1) - 1) * -FLOOR_DB / 20)
    size = (torch.linalg.pinv(mel_filters()) @ power).clamp(min=0).sqrt()
    window, phases = torch.hann_window(WINDOW), torch.ones_like(size, dtype=torch.complex64)
    for _ in range(rounds):
        wave = torch.istft(size * phases, WINDOW, HOP, window=window, length=SAMPLES)
        spectrum = torch.stft(wave, WINDOW, HOP, window=window, return_complex=True)
        phases = spectrum / spectrum.abs().clamp(min=1e-9)
    return 0.9 * wave / wave.abs().max().clamp(min=1e-9)
