"""Sweeps: many runs of a notebook side by side, on this machine or on a cluster."""

import json
import os
import pickle
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from ..errors import FileError, in_line
from ..locks import locked
from ..progress import is_interactive
from ..reading import parse_json, text_of
from ..storage import atomic_write
from .results import check_run_name, writable_folder
from .run import _signals
from .spec import Spec, read_spec, run_key
from .workers import (
    ENDED,
    GRACE,
    WITHOUT_RESULT,
    Job,
    RunState,
    SweepError,
    check_options,
    check_shared,
    connected,
    interrupt_runs,
    run_state,
)

FORMAT = "bmnas-sweep/1"
#: Seconds between checks of what other sweeps have done.
POLL = 1.0
#: Seconds that our own workers may take to restart.
PATIENCE = 300.0
#: Give a run up after this many workers died before it could start.
MAX_LOST = 10


def sweep(
    spec: str | os.PathLike | Mapping,
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    insecure: bool = False,
    dashboard: bool = False,
    progress: bool = True,
):
    """Do all runs of a spec that ``out`` does not hold yet, on workers of dask.distributed.

    Each run gets a folder in ``out``, as :func:`~bmnas_core.experiments.run` leaves it. All use the
    notebook as it was when the sweep began. A run that fails does not end the others. If a worker
    dies, another one takes its run over, up to three times. The next call does what is missing,
    has failed or was interrupted. Two sweeps in one folder share the work.

    Args:
        spec: a YAML file or a dict, see :func:`~bmnas_core.experiments.read_spec`.
        out: the folder, made if need be.
        workers: how many runs at a time on this machine; by default, one per core.
        scheduler: the address of a dask scheduler whose workers see ``out``, such as
            ``tls://10.0.0.1:8786``; by default, the sweep starts its own on this machine.
        insecure: accept a scheduler without TLS. Anyone who reaches it can run code as you, also on
            this machine.
        dashboard: serve dask's dashboard, on this machine only.
        progress: show a bar in a terminal or notebook, and a line for each run elsewhere.

    Returns a pandas DataFrame with a row for each run of the spec: ``run`` (the name of its
    folder), ``status`` ("done" if it has a result), ``seconds`` and ``error``.

    Raises:
        SpecError, NotebookError: for a spec that is not valid, before anything starts.
        SweepError: for a folder that holds other results or that workers do not share, and for a
            scheduler that is not safe, does not answer or is lost.
        FileError: if the folder is full, read-only or vanishes.
    """
    import pandas as pd

    checked = read_spec(spec)
    check_options(workers, scheduler, insecure, dashboard)
    folder = writable_folder(Path(out)).absolute()
    with _marked(folder) as mark:
        jobs = _planned(checked, folder, mark)
        states = {job.name: job.before for job in jobs}
        if to_do := [job for job in jobs if job.before.status != "done"]:
            with _signals(), connected(workers, scheduler, dashboard, progress) as client:
                check_shared(client, folder, mark)
                patience = PATIENCE if scheduler is None else None
                states |= _Dispatcher(client, to_do, patience, progress).run()
    table = pd.DataFrame([asdict(states[job.name]) for job in jobs]).fillna({"error": ""})
    table["error"] = [e.removeprefix(f"{jobs[0].notebook} ") for e in table["error"]]
    table.insert(0, "run", [job.name for job in jobs])
    return table[["run", "status", "seconds", "error"]]


# --- the folder


@contextmanager
def _marked(folder: Path) -> Iterator[Path]:
    """A file in the sweep's folder, with a unique name, that exists while the sweep runs."""
    mark = folder / f".sweep-{uuid.uuid4().hex[:16]}"
    try:
        with atomic_write(mark) as beside:
            beside.write_text(mark.name, "utf-8")
        yield mark
    finally:
        with suppress(OSError):
            for path in folder.glob(f"{mark.name}*"):
                path.unlink(missing_ok=True)


def _planned(spec: Spec, folder: Path, mark: Path) -> list[Job]:
    """The spec's runs with their folders, which ``sweep.json`` lists from now on."""
    path = folder / "sweep.json"
    kept = Path("notebooks") / spec.sha256[:12] / spec.notebook.name
    with locked(folder, wait=60.0):
        record = _read_record(path)
        runs = _without_changed(record["runs"], spec, folder)
        named = {run_key(r["notebook_sha256"], r["parameters"]): name for name, r in runs.items()}
        freed = record["runs"].keys() - runs.keys()
        wanted = {run_key(spec.sha256, values) for values in spec.runs}
        for name in freed:  # a run of the changed notebook takes the folder of its failed one
            key = run_key(spec.sha256, record["runs"][name]["parameters"])
            if key in wanted:
                named.setdefault(key, name)
        taken = {
            entry.name
            for entry in folder.iterdir()
            if entry.name in runs or run_state(entry).status not in WITHOUT_RESULT
        } - freed
        names = spec.names(taken, named)
        about = {"notebook": spec.notebook.name, "notebook_sha256": spec.sha256}
        planned = dict(zip(names, spec.runs, strict=True))
        runs |= {name: {**about, "parameters": values} for name, values in planned.items()}
        specs = record["specs"] + [spec.source] * (spec.source not in record["specs"])
        record = {**record, "specs": specs, "runs": runs}
        with atomic_write(folder / kept) as beside:
            beside.write_bytes(spec.content)
        with atomic_write(path) as beside:
            text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
            beside.write_text(text, encoding="utf-8")
    jobs, pictures = [], spec.notebook.absolute().parent
    for name, values in planned.items():
        key, before = run_key(spec.sha256, values), run_state(folder / name)
        if before.status == "done" and before.key != key:
            raise SweepError(folder / name, "the result of another run", "another --out")
        limits = spec.timeout, spec.time_limit
        what = name, folder / name, folder / kept, pictures, values, key
        jobs.append(Job(*what, *limits, before, mark))
    return jobs


def _without_changed(runs: dict, spec: Spec, folder: Path) -> dict:
    """``runs`` without those of an earlier version of the same notebook.

    Raises :class:`SweepError` if one of them has a result, as a table must not mix versions.
    """
    changed = [
        name
        for name, about in runs.items()
        if about["notebook"] == spec.notebook.name and about["notebook_sha256"] != spec.sha256
    ]
    kept = [name for name in changed if run_state(folder / name).status in ("done", "running")]
    if kept:
        was = Path("notebooks") / runs[kept[0]]["notebook_sha256"][:12] / spec.notebook.name
        found = f"{len(kept)} runs of {spec.notebook.name} as it was before a change"
        raise SweepError(folder, found, f"another --out, or the notebook as in {folder / was}")
    return {name: about for name, about in runs.items() if name not in changed}


def _read_record(path: Path) -> dict:
    """A ``sweep.json``, or a new one. Raises :class:`SweepError` for a damaged file."""
    if not path.exists():
        return {"format": FORMAT, "specs": [], "runs": {}}
    try:
        record = parse_json(text_of(path), SweepError, path)
        found = [type(record), record["format"], type(record["specs"]), type(record["runs"])]
        whole = found == [dict, FORMAT, list, dict] and all(
            isinstance(run["notebook"], str)
            and isinstance(run["notebook_sha256"], str)
            and isinstance(run["parameters"], dict)
            for run in record["runs"].values()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise SweepError(path, "a damaged file", f"what a sweep writes ({FORMAT})")
    for name in record["runs"]:
        check_run_name(name, f"{path}: runs")
    return record


# --- the dispatcher


class _Dispatcher:
    """Hands runs to workers, and to others if those die; waits for the runs of other sweeps.

    If there is no worker, it waits ``patience`` seconds for one; None waits for ever.
    """

    def __init__(self, client, jobs: Iterable[Job], patience: float | None, progress: bool):
        self.client, self.jobs = client, {job.name: job for job in jobs}
        self.mark = next(iter(self.jobs.values())).mark
        self.events, self.futures = SimpleQueue(), {}
        self.ended: dict[str, RunState] = {}
        self.running, self.elsewhere = set(), set()
        self.lost, self.submitted = Counter(), 0
        self.patience, self.last_seen = patience, time.monotonic()
        self.display = _Display(len(self.jobs), progress)

    def run(self) -> dict[str, RunState]:
        """How all runs ended. If this is interrupted or fails, runs under way are ended."""
        self.client.subscribe_topic(self.mark.name, lambda event: self.events.put((event[1], None)))
        try:
            for job in self.jobs.values():
                self._submit(job)
            while len(self.ended) < len(self.jobs):
                try:
                    name, future = self.events.get(timeout=POLL)
                except Empty:
                    self._look_around()
                else:
                    self._take(name, future)
                self.display.update(len(self.running), self.ended.values())
            return {name: self.ended[name] for name in self.jobs}
        except BaseException:
            self._interrupt()
            raise
        finally:
            self.display.close()

    def _submit(self, job: Job) -> None:
        key = f"{job.name}-{uuid.uuid4().hex}"
        self.submitted += 1  # first in, first out
        options = {"key": key, "pure": False, "priority": -self.submitted}
        future = self.client.submit(_in_worker(), pickle.dumps(job), **options)
        self.futures[job.name] = future
        future.add_done_callback(lambda future: self.events.put((job.name, future)))

    def _take(self, name: str, future) -> None:
        """A run has started, or ended if there is a future."""
        from distributed import KilledWorker

        if future is None:
            return self.running.add(name)
        self.running.discard(name)
        self.futures.pop(name, None)
        try:
            state = future.result(timeout=GRACE)
        except KilledWorker:
            # Perhaps it only waited beside a run that ended its worker; do_run counts its own.
            self.lost[name] += 1
            if self.lost[name] < MAX_LOST:
                return self._submit(self.jobs[name])
            state = RunState("killed", "its workers die before it starts")
        except Exception as error:
            raise self._gone(error) from None
        if state.status == "busy":
            self.elsewhere.add(name)
        elif state.status == "no folder":
            raise FileError(state.error)
        else:
            self._end(name, state)

    def _end(self, name: str, state: RunState) -> None:
        self.ended[name] = state
        self.display.line(name, state)

    def _look_around(self) -> None:
        """Take over what other sweeps did or left undone; check that the scheduler is there."""
        try:
            if self.client.nthreads():
                self.last_seen = time.monotonic()
        except Exception as error:
            raise self._gone(error) from None
        if self.patience is not None and time.monotonic() - self.last_seen > self.patience:
            raise SweepError("workers", "none that starts again", "at least 1")
        for name in list(self.elsewhere):
            job = self.jobs[name]
            state = run_state(job.folder)
            if state.status == "running":
                continue
            self.elsewhere.discard(name)
            if state.key == job.key and state.status in ENDED:
                self._end(name, state)
            else:
                self._submit(replace(job, before=state))

    def _gone(self, error: object) -> SweepError:
        address = self.client.scheduler.address if self.client.scheduler else "?"
        return SweepError(f"scheduler {address}: gone ({in_line(error)})")

    def _interrupt(self) -> None:
        """Start no more runs, and end those under way, with their kernels."""
        with suppress(Exception):
            self.client.cancel(list(self.futures.values()), force=True)
            end = time.monotonic() + GRACE
            while any(self.client.run(interrupt_runs, self.mark, on_error="return").values()):
                if time.monotonic() > end:
                    break
                time.sleep(POLL / 5)


def _in_worker() -> Callable[[bytes], RunState]:
    """:func:`do_run` for a scheduler that lacks the kit: it need not import any of it."""

    def call(job: bytes) -> RunState:  # local, so that it is sent as it is and not by its name
        import pickle

        from bmnas_core.experiments.workers import do_run

        return do_run(pickle.loads(job))

    return call


class _Display:
    """A sweep's progress: a bar in a terminal or notebook, a line for each run elsewhere."""

    def __init__(self, total: int, progress: bool):
        from tqdm.auto import tqdm

        self.lines = progress and not is_interactive()
        form = "{desc} {n_fmt}/{total_fmt} |{bar}|{postfix}"
        hidden = self.lines or not progress
        self.bar = tqdm(desc="runs", total=total, leave=False, disable=hidden, bar_format=form)
        self.begun = time.monotonic()

    def update(self, running: int, ended: Iterable[RunState]) -> None:
        ended = list(ended)
        good = sum(state.status == "done" for state in ended)
        parts = [f"{running} running", f"{good} done", f"{len(ended) - good} failed"]
        if ended:
            each = (time.monotonic() - self.begun) / len(ended)
            minutes = each * (self.bar.total - len(ended)) / 60
            parts.append(f"{minutes:.0f} min left" if minutes >= 1 else "less than 1 min left")
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(len(ended) - self.bar.n)
        self.bar.refresh()

    def line(self, name: str, state: RunState) -> None:
        if self.lines:
            print(f"{name}: {state.status}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self.bar.close()
