"""What a result depends on besides its code: versions, machine, threads, commits and data."""

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np

from ..config import __version__

#: The kit's own folder.
KIT = Path(__file__).resolve().parents[1]
#: The most seconds that git or sysctl may take.
PATIENCE = 10


def versions() -> dict[str, str]:
    """Of Python, this kit, and the packages that compute."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "bmnas": __version__,
    }


def provenance(
    device: object,
    bank=None,
    parameters: Mapping | None = None,
    resumed: float | None = None,
) -> dict:
    """How a result was made, as plain JSON.

    ``time`` is ISO 8601 with its zone, ``git`` the commits of the working directory and of the kit
    (null outside a checkout), ``data`` the fingerprint of features, labels and splits.

    Args:
        device: as the result names it; ``gpu`` is the name of a GPU.
        bank: the :class:`~bmnas_core.features.FeatureBank` that was used.
        parameters: of the run.
        resumed: seconds of work that were done before a run was resumed; its times lack them.
    """
    import torch

    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "parameters": None if parameters is None else dict(parameters),
        "resumed": resumed,
        "threads": torch.get_num_threads(),
        "processor": {"model": processor_model(), "cores": cores()},
        "gpu": _gpu(device),
        "platform": platform.platform(),
        "git": {"here": git_state(Path.cwd()), "kit": git_state(KIT, "__init__.py")},
        "data": None if bank is None else _fingerprint(bank),
    }


def git_state(folder: Path, *files: str) -> dict | None:
    """The commit of the checkout that ``folder`` is in, and whether tracked files are unchanged.

    None outside a checkout, without git, or if one of ``files`` in the folder is not tracked.
    """
    try:
        if files:
            _git(folder, "ls-files", "--error-unmatch", *files)
        commit = _git(folder, "rev-parse", "HEAD").strip()
        clean = not _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "clean": clean}


def processor_model() -> str:
    """The name of the processor, as the system calls it."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() == "model name":
                return value.strip()
    with suppress(OSError, subprocess.SubprocessError):
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return _output(command).strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _gpu(device: object) -> str | None:
    import torch

    from ..runtime import device_name

    with suppress(RuntimeError, TypeError, AssertionError):
        found = torch.device(device)
        return device_name(found) if found.type == "cuda" else None
    return None


def _fingerprint(bank) -> dict:
    samples = {name: bank.size(name) for name in ("train", "validation", "test")}
    left_out = sum(map(len, bank.skipped.values()))
    return {"content_hash": bank.content_hash, "samples": samples, "items_left_out": left_out}


def _git(folder: Path, *words: str) -> str:
    return _output(["git", "-C", str(folder), *words])


def _output(command: list[str]) -> str:
    """What a program prints. Raises OSError or SubprocessError if it is missing or fails."""
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        command,
        env={**os.environ, **quiet},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout
