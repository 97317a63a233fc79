"""How near a bilevel update is to its arithmetic, and how much faster than at another commit.

    python tests/benchmarks/updates.py --settings ntu digits --repeat 15 --against ../before
    python tests/benchmarks/updates.py --growth
    python tests/benchmarks/updates.py --operations

Each row is a setting and a relaxation: the median time of one update of the weights and of α, β, γ,
on one thread; the time of the matrix products of the published computation, one after the other;
and what the first takes as a multiple of the second. ``--against`` is a checkout of another commit,
whose updates are timed in turn with this one's. Features are random: only shapes matter here.

``--growth`` multiplies one size of a setting at a time, and fits how the time of an update grows
with it: the exponent of a power, by least squares of the logarithms. ``--operations`` counts the
operations on tensors of an update, views aside: on a GPU each launches about one kernel.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]

VGG = {"Image": [512] * 4, "Text": [64, 128]}
RESNET, HCN = [512, 1024, 2048, 2048], [128, 256, 1024, 512]
DIGITS = {"Image": [16, 32, 64, 32], "Audio": [16, 32, 64, 32]}
LENET = {"Image": [16, 32, 64], "Audio": [16, 32, 64]}
#: Channels of the features; classes, batch, C, L, N, M, dropout: the paper's own, and two tasks'.
SETTINGS = {
    "mmimdb": (VGG, 23, 96, 192, 16, 2, 1, 0.1),
    "ntu": ({"Video": RESNET, "Skeleton": HCN}, 60, 96, 128, 8, 2, 2, 0.2),
    "egogesture": ({"RGB": RESNET, "Depth": RESNET}, 83, 72, 128, 8, 2, 3, 0.0),
    "digits": (DIGITS, 19, 64, 48, 4, 2, 2, 0.1),
    "avmnist": (LENET, 19, 64, 64, 8, 2, 2, 0.1),
    "avmnist_sum": (LENET, 19, 96, 256, 1, 2, 2, 0.1),
}


def products(channels, classes, batch, C, L, N, M, dropout) -> list[tuple[int, int, int, int]]:
    """The matrix products of one update as published: (how many in a batch, rows, inner, columns).

    Forward, and backward for the weights; forward, and backward to α, β, γ alone. The features get
    no gradient. A cleverer form that needs fewer products is a gain, not a lower floor.
    """
    rows = batch * L
    reshape = [(1, rows, c, C) for own in channels.values() for c in own]
    layers = [(1, rows, 2 * C, 2 * C), (1, rows, 2 * C, C)] * (N * M)  # LinearGLU, ConcatFC
    layers += [(1, rows, M * C, C)] * (N if M > 1 else 0)
    layers.append((1, batch, N * C * L, classes))
    attention = [(batch, L, C, L), (batch, L, L, C)] * (N * M)
    forward = [*reshape, *layers, *attention]
    to_inputs = [(n, m, o, i) for n, m, i, o in layers + attention]
    to_inputs += [(n, i, m, o) for n, m, i, o in attention]
    to_weights = [(n, i, m, o) for n, m, i, o in reshape + layers]
    return [*forward, *to_inputs, *to_weights, *forward, *to_inputs]


def gigaflops(name: str) -> float:
    return sum(2 * n * m * i * o for n, m, i, o in products(*SETTINGS[name])) / 1e9


def floor(name: str):
    """A function that computes the products of an update."""
    import torch

    pairs = [
        (torch.randn(n, m, i), torch.randn(n, i, o)) for n, m, i, o in products(*SETTINGS[name])
    ]
    pairs = [(a[0], b[0]) if len(a) == 1 else (a, b) for a, b in pairs]
    outs = [a @ b for a, b in pairs]

    def run() -> None:
        for (a, b), out in zip(pairs, outs, strict=True):
            torch.matmul(a, b, out=out)

    return run


def search_of(name: str, relaxation: str, precision: str = "fp32", setting: tuple = ()):
    """A search on random features of a setting; a quarter of its updates end an epoch."""
    import numpy as np

    import bmnas_core as bm

    channels, classes, batch, C, L, N, M, dropout = setting or SETTINGS[name]
    random, n = np.random.default_rng(0), 9 * batch
    features = {
        modality: [random.normal(size=(n, c, L)).astype(np.float32) for c in own]
        for modality, own in channels.items()
    }
    labels = np.arange(n) % classes
    splits = ["train"] * (4 * batch) + ["validation"] * (4 * batch) + ["test"] * batch
    task = bm.Task.from_features("random", features, labels, splits)
    config = {"C": C, "L": L, "N": N, "M": M, "batch_size": batch, "dropout": dropout}
    config |= {"epochs": 1000, "relaxation": relaxation, "selection": "argmax"}
    if precision != "fp32":  # commits before it have no such setting
        config["precision"] = precision
    return bm.Search(task, bm.SearchConfig(**config), device="cpu")


def serve(name: str, relaxation: str, precision: str) -> None:
    """For each line of the standard input make an update, and print how many seconds it took."""
    search = search_of(name, relaxation, precision)
    for _ in sys.stdin:
        start = time.perf_counter()
        next(search)
        print(time.perf_counter() - start, flush=True)


class Updates:
    """A process that makes updates when it is told to, with the code of a checkout."""

    def __init__(self, checkout: Path, *what: str):
        words = [sys.executable, __file__, "--serve", *what]
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(words, env=environment, **pipes)

    def __call__(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, relaxation: str, repeat: int, against: Path | None, precision: str) -> dict:
    """Medians over ``repeat`` rounds, in each of which all are timed in turn."""
    import torch

    torch.set_num_threads(1)
    least = floor(name)
    sides = {"now": ROOT} | ({"before": against} if against else {})
    how = {"now": precision, "before": "fp32"}
    updates = {side: Updates(sides[side], name, relaxation, how[side]) for side in sides}
    times: dict[str, list[float]] = {"floor": [], **{side: [] for side in sides}}
    try:
        for i in range(repeat + 3):
            start = time.perf_counter()
            least()
            found = {"floor": time.perf_counter() - start}
            found |= {side: update() for side, update in updates.items()}
            for what, seconds in found.items() if i >= 3 else ():  # the first ones warm up
                times[what].append(seconds)
    finally:
        for update in updates.values():
            update.end()
    row = {
        "setting": name,
        "relaxation": relaxation,
        "precision": precision,
        "gflop": round(gigaflops(name), 2),
    }
    row |= {f"{what}_ms": round(1e3 * median(own), 1) for what, own in times.items()}
    ratios = [a / b for a, b in zip(times["now"], times["floor"], strict=True)]
    row["now_over_floor"] = round(median(ratios), 2)
    if against:
        ratios = [a / b for a, b in zip(times["before"], times["now"], strict=True)]
        row["before_over_now"] = round(median(ratios), 2)
    return row


#: The setting that grows: channels of each feature, features, classes, batch, C, L, N, M; and by
#: what each of these is multiplied.
GROWING = {
    "channels": 32,
    "features": 8,
    "classes": 19,
    "batch": 64,
    "C": 48,
    "L": 4,
    "N": 2,
    "M": 2,
}
FACTORS = (1, 2, 4, 8)


def growth(size: str, repeat: int) -> dict:
    """The median time of an update for each factor of one size, and the exponent that fits them."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    row, seconds = {"size": size, "from": GROWING[size]}, []
    for factor in FACTORS:
        now = GROWING | {size: factor * GROWING[size]}
        half = [now["channels"]] * (now["features"] // 2)
        numbers = [now[name] for name in ("classes", "batch", "C", "L", "N", "M")]
        search = search_of("", "pair", setting=({"A": half, "B": half}, *numbers, 0.1))
        times = []
        for _ in range(repeat + 3):
            start = time.perf_counter()
            next(search)
            times.append(time.perf_counter() - start)
        seconds.append(median(times[3:]))
        row[f"ms_x{factor}"] = round(1e3 * seconds[-1], 1)
    row["exponent"] = round(float(np.polyfit(np.log(FACTORS), np.log(seconds), 1)[0]), 2)
    return row


def operations(name: str, relaxation: str) -> int:
    """How many operations an update dispatches, without views and empty tensors."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            aliases = [found.alias_info for found in function._schema.returns]
            is_view = any(alias is not None and not alias.is_write for alias in aliases)
            self.count += not (is_view or "empty" in function.__name__)
            return function(*args, **(kwargs or {}))

    search = search_of(name, relaxation)
    for _ in range(5):  # the fourth ends an epoch
        next(search)
    with Counter() as counter:
        next(search)
    return counter.count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--relaxations", nargs="+", default=["paper", "pair"])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--growth", action="store_true", help="how time grows with each size")
    parser.add_argument("--operations", action="store_true", help="count the operations")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    for size in GROWING if args.growth else ():
        print(json.dumps(growth(size, args.repeat)), flush=True)
    for name in () if args.growth else args.settings:
        for relaxation in args.relaxations:
            row = {"setting": name, "relaxation": relaxation}
            if args.operations:
                row["operations"] = operations(name, relaxation)
            else:
                row = compare(name, relaxation, args.repeat, args.against, args.precision)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
