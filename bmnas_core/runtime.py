"""What a run depends on: the device, random numbers, and the lock that guards them."""

import functools
import hashlib
import operator
import os
import subprocess
import threading
from contextlib import contextmanager, nullcontext, suppress

import torch

from .config import ConfigError
from .errors import BmnasError


class DeviceError(BmnasError):
    """A device that this machine does not have."""


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """A device of this machine; ``"auto"`` is the first GPU, or the CPU if there is none.

    A GPU is ``"cuda"``, or Apple's ``"mps"``. The environment variable ``BMNAS_DEVICE`` names
    another device for ``"auto"``. Raises :class:`DeviceError` for an unknown name, or
    a device that this machine lacks.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if device == "auto":
        first = next(name for name, count in counts.items() if count)
        device = os.environ.get("BMNAS_DEVICE") or first
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in counts:
        raise DeviceError("device", repr(device), "'auto', 'cpu', 'mps', 'cuda', 'cuda:0', …")
    count = counts[found.type]
    if found.type == "cuda" and found.index is None and count:
        found = torch.device("cuda", torch.cuda.current_device())
    elif found.type == "mps":
        found = torch.device("mps", found.index or 0)  # as tensors there say
    if not 0 <= (found.index or 0) < count:
        there = f"{str(device)!r}, but this machine has {count} {found.type} device(s)"
        raise DeviceError("device", there, "'auto' or 'cpu'")
    return found


def device_name(device: torch.device) -> str:
    """What results call a device: ``"cpu"``, or the name of the GPU, such as ``"Apple M2"``."""
    if device.type == "mps":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError):
            return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "mps"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def as_seed(seed: int) -> int:
    """A seed as a plain int, NumPy's too. Raises :class:`ConfigError` for anything else."""
    try:
        return operator.index(seed)
    except TypeError:
        raise ConfigError("seed", repr(seed), "an integer") from None


def generator(seed: int, *stream: str | int) -> torch.Generator:
    """A random generator of its own for each (seed, stream), e.g. ``generator(0, "pairs")``."""
    digest = hashlib.blake2b(repr((as_seed(seed), *stream)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


#: How products may be computed in training: in single precision, or with bfloat16 factors.
PRECISIONS = ("fp32", "bf16")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which a network's products have one of :data:`PRECISIONS`; sums are fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def at_least_single(outputs: torch.Tensor) -> torch.Tensor:
    """A network's outputs for a loss, which is not computed in bfloat16."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


#: Held while numbers are drawn from a random stream, so that no thread draws those of another.
RNG_LOCK = threading.RLock()


@contextmanager
def seeded(seed: int, *stream: str | int, device: torch.device | None = None):
    """Run a block on the random numbers of (seed, stream) and leave the global ones untouched.

    The block always sees the same numbers, whatever else draws some. So a search can be resumed
    without stored generator states, and two searches do not disturb each other, even in threads.
    """
    number = generator(seed, *stream).initial_seed()
    kind = "cpu" if device is None else device.type
    gpus = [device] if kind == "cuda" else []
    with RNG_LOCK, torch.random.fork_rng(devices=gpus):
        torch.random.default_generator.manual_seed(number)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(number)
        with _forked_mps(number) if kind == "mps" else nullcontext():
            yield


@contextmanager
def _forked_mps(number: int):
    before = torch.mps.get_rng_state()
    try:
        torch.mps.manual_seed(number)
        yield
    finally:
        torch.mps.set_rng_state(before)


@functools.lru_cache(16)  # a search asks for one batch at a time
def epoch_batches(
    n: int, batch_size: int, seed: int, *stream: str | int
) -> tuple[torch.Tensor, ...]:
    """A shuffled epoch over n samples as batches of nearly equal size, at most ``batch_size``."""
    order = torch.randperm(n, generator=generator(seed, *stream))
    return order.tensor_split(-(-n // batch_size))
