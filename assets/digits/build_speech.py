"""Make the speech of the task ``digits``: digits zero to nine spoken by espeak-ng.

Forty synthetic voices (an accent and a variant of it each) say every digit at three pitches and
speeds. Each clip is trimmed, resampled to 8 kHz and kept as a mel spectrogram in decibels below
its peak, one byte a value. A high voice's clips are kept as sound too, and two of a low one, to
listen to.

    python assets/digits/build_speech.py        # needs espeak-ng; half a minute
"""

from __future__ import annotations

import io
import subprocess
import wave
from math import gcd
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from bmnas_core.storage import atomic_write
from bmnas_core.tasks.audio import SAMPLE_RATE, fit_length, mel_power
from bmnas_core.tasks.digits import DECIBELS, WORDS

HERE = Path(__file__).parent
# Not "en-gb": espeak-ng 1.51 ignores its variants. distinct() sees to it that no other one does.
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
VOICES, RENDITIONS = 40, 3
#: Voice → what its examples are called, and the words.
EXAMPLES = {"en+f1": ("{}.wav", WORDS), "en+m1": ("low_{}.wav", ("two", "five"))}


def speak(word: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    """One spoken word at 8 kHz, trimmed to within 40 dB of its loudest, peak 0.9: (samples,)."""
    sound = subprocess.run(
        ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", word],
        check=True,
        capture_output=True,
    ).stdout
    with wave.open(io.BytesIO(sound)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    common = gcd(rate, SAMPLE_RATE)
    samples = resample_poly(samples, SAMPLE_RATE // common, rate // common)
    level = np.sqrt(np.convolve(samples**2, np.ones(160) / 160, "same"))
    loud = np.flatnonzero(level > 0.01 * level.max())
    samples = samples[loud[0] : loud[-1] + 1]
    return (0.9 * samples / np.abs(samples).max()).astype(np.float32)


def distinct(voices: list[str]) -> None:
    """Raise ValueError if two voices say the same word in the same way."""
    spoken = {speak("four", voice, 50, 160).tobytes(): voice for voice in voices}
    if len(spoken) < len(voices):
        raise ValueError(f"found {len(spoken)} voices that differ; allowed: all {len(voices)}")


def write_wave(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def main() -> None:
    random = np.random.default_rng(0)
    all_voices = [f"{accent}+{variant}" for accent in ACCENTS for variant in VARIANTS]
    voices = sorted(random.choice(all_voices, VOICES, replace=False))
    distinct(voices)
    rows = {"decibels": [], "digit": [], "voice": [], "pitch": [], "speed": []}
    (HERE / "examples").mkdir(exist_ok=True)
    for v, voice in enumerate(voices):
        for digit, word in enumerate(WORDS):
            for rendition in range(RENDITIONS):
                pitch, speed = int(random.integers(20, 81)), int(random.integers(130, 221))
                samples = speak(word, voice, pitch, speed)
                power = mel_power(fit_length(torch.from_numpy(samples)))
                below_peak = 10 * torch.log10(power / power.max() + 1e-12)
                scaled = (below_peak.clamp(min=-DECIBELS) / DECIBELS + 1) * 255
                for key, value in zip(
                    rows, (scaled.round().byte().numpy(), digit, v, pitch, speed), strict=True
                ):
                    rows[key].append(value)
                name, words = EXAMPLES.get(voice, ("", ()))
                if word in words and rendition == 0:
                    write_wave(HERE / "examples" / name.format(word), samples)
    arrays = {k: np.array(v, np.uint8) for k, v in rows.items()}
    with atomic_write(HERE / "speech.npz") as beside, open(beside, "wb") as file:
        np.savez_compressed(file, voices=np.array(voices), **arrays)
    print(f"{len(rows['digit'])} clips, {(HERE / 'speech.npz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
