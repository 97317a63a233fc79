"""Where data files are, whether they are the right ones, and how to get them."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ..errors import BmnasError
from ..progress import progress_bar
from ..registry import Registry
from .inputs import DataError, DataWarning

PACKAGE = Path(__file__).parents[1]

#: The kit's tasks: name → module that registers the task and its data set.
MODULES = {
    "digits": "bmnas_core.tasks.digits",
    "avmnist": "bmnas_core.tasks.avmnist",
    "mmimdb": "bmnas_core.tasks.paper.mmimdb",
    "ntu": "bmnas_core.tasks.paper.ntu",
    "egogesture": "bmnas_core.tasks.paper.egogesture",
}


def asset(name: str, *, missing_ok: bool = False) -> Path:
    """A file that comes with the kit: inside an installed wheel, else in the checkout.

    Raises:
        DataError: if it is not there and must be.
    """
    places = [PACKAGE / "assets" / name, PACKAGE.parent / "assets" / name]
    for place in places:
        if place.exists() or missing_ok and place is places[-1]:
            return place
    raise DataError(f"asset {name!r}: not found; looked at {places[0]} and {places[1]}")


def data_root() -> Path:
    """Folder of downloaded data sets: ``$BMNAS_DATA``, else ``~/.cache/bmnas/data``."""
    return Path(os.environ.get("BMNAS_DATA") or cache_folder() / "data").expanduser()


def cache_folder() -> Path:
    """Folder of files that can be made again: ``$BMNAS_CACHE``, else ``~/.cache/bmnas``."""
    return Path(os.environ.get("BMNAS_CACHE") or Path.home() / ".cache" / "bmnas").expanduser()


def package(name: str) -> ModuleType:
    """Import a package that only the paper's tasks need.

    Raises:
        DataError: if it is not installed, with the remedy.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise DataError(
            f"package {name!r}: {error}; install what the paper's tasks need: "
            "pip install 'bmnas[tasks]', or in a checkout pip install -e '.[tasks]'"
        ) from None


def cached_folder(name: str, make: Callable[..., None], *arguments) -> Path:
    """A folder in the cache, filled by ``make(folder, *arguments)`` unless it is there already.

    It is made anew if the source of ``make``'s module or the arguments change.
    """
    digest = hashlib.sha256(Path(sys.modules[make.__module__].__file__).read_bytes())
    digest.update(repr(arguments).encode())
    folder = cache_folder() / "made" / f"{name}-{digest.hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(".part", f".{folder.name}.", folder.parent))
        try:
            make(unfinished, *arguments)
            unfinished.chmod(0o755)
            with suppress(OSError):  # another process was first
                unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class DataSet:
    """The files of a task: what they are, where they lie, and where they come from.

    Attributes:
        folder: below :func:`data_root`; None for files that come with the kit.
        manifest: returns the expected files, path relative to ``root`` → SHA-256. None for data
            sets of which users may have parts; ``read`` checks those.
        url: path of a file → its address; None for data sets that their owners give on request.
        read: loads the task from the files. Used if there is no manifest.
    """

    name: str
    title: str
    license: str
    source: str
    folder: str | None
    manifest: Callable[[], dict[str, str]] | None = None
    url: Callable[[str], str] | None = None
    read: Callable[[], object] | None = None

    @property
    def embedded(self) -> bool:
        return self.folder is None

    @property
    def root(self) -> Path:
        return asset(self.name) if self.folder is None else data_root() / self.folder

    @property
    def state(self) -> str:
        """``"embedded"``, ``"missing"`` or ``"ready"``.

        Without a manifest, ``"ready"`` only means that the folder exists.
        """
        if self.embedded:
            return "embedded"
        present = not self.check() if self.manifest else self.root.is_dir()
        return "ready" if present else "missing"

    def check(self) -> list[str]:
        """Problems with the files, one line each, such as a file that is missing or damaged."""
        problems = []
        if self.manifest is None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", DataWarning)
                try:
                    self.read()
                except BmnasError as error:
                    problems.append(str(error))
            left_out = [w for w in caught if issubclass(w.category, DataWarning)]
            return problems + [str(warning.message) for warning in left_out]
        for path, expected in self.manifest().items():
            file = self.root / path
            try:
                found = hashlib.sha256(file.read_bytes()).hexdigest()
            except FileNotFoundError:
                problems.append(f"{file}: missing")
                continue
            except OSError as error:
                problems.append(f"{file}: cannot be read ({error.strerror})")
                continue
            if found != expected:
                problems.append(
                    f"{file}: found {file.stat().st_size} bytes with SHA-256 {found[:16]}…; "
                    f"allowed: {expected[:16]}…"
                )
        return problems

    def require(self) -> Path:
        """The folder with the files, once they are checked.

        Raises:
            DataError: for files that are missing or wrong: the first ones, and the remedy.
        """
        problems = self.check()
        if problems:
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            raise DataError(
                f"data of task {self.name!r}: {'; '.join(problems[:3])}{more}. "
                f"Set BMNAS_DATA to the folder that holds {self.folder!r}, or run: "
                f"bmnas data fetch {self.name}"
            )
        return self.root

    def fetch(self) -> None:
        """Download the files that are missing or wrong. Each is checked before it is put in place.

        Raises:
            DataError: if the data set cannot be downloaded, or a download fails.
        """
        if self.embedded:
            raise DataError(f"data of task {self.name!r}: comes with the kit; nothing to fetch")
        if self.url is None:
            raise DataError(
                f"data of task {self.name!r}: cannot be fetched, its owners give it on request: "
                f"{self.source}. Put its files into {self.root}"
            )
        import pooch

        hashes = self.manifest()

        def download(path: str) -> None:
            target = self.root / path
            pooch.retrieve(
                self.url(path),
                known_hash=f"sha256:{hashes[path]}",
                fname=target.name,
                path=target.parent,
            )

        pooch.get_logger().setLevel("WARNING")
        with ThreadPoolExecutor(8) as pool:
            try:
                for _ in progress_bar(pool.map(download, hashes), self.name, len(hashes)):
                    pass
            except (OSError, ValueError) as error:
                pool.shutdown(cancel_futures=True)
                raise DataError(f"data of task {self.name!r}: download failed: {error}") from None


#: The data sets of the kit's tasks, by the task's name.
DATA_SETS = Registry("data set", DataError, on_demand=MODULES)


def read_manifest(path: Path) -> dict[str, str]:
    """A file in the format of ``sha256sum``: path → hash."""
    rows = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in rows}
