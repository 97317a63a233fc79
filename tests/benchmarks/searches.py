"""Whole default searches by phase, one training, and the peak of memory, at two commits in turn.

    python tests/benchmarks/searches.py --tasks digits:sum digits:voice --against ../before

A row is a task and a rule: CPU seconds of the updates, the perturbation, the successive halving and
one training of what was found, on one thread, and the most memory that the process took. Both sides
have the same sizes. They may find other architectures, so the training is of a fixed one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("updates", "perturbation", "halving", "training")


def measure(name: str, rule: str, seed: int) -> dict:
    """Seconds of each phase of a default search, and of a training, in this process."""
    import bmnas_core as bm
    from bmnas_core.baselines.architectures import fixed_genotype

    task = bm.load_task(name, rule=rule)
    search, seconds = bm.Search(task, seed=seed, device="cpu"), defaultdict(float)
    bank, start = bm.FeatureBank.shared(task, None, "cpu"), time.process_time()
    for state in search:
        now = time.process_time()
        selecting = state.step - search.updates
        phase = "updates" if selecting <= 0 else "perturbation"
        phase = "halving" if selecting > search.config.N else phase
        seconds[phase] += now - start
        start = time.process_time()
    bm.train(fixed_genotype(task, "attention on attention"), task, bank=bank, device="cpu")
    seconds["training"] = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": dict(seconds), "peak_mib": peak, "score": search.best_score}


def run(checkout: Path, *what: str) -> dict:
    """:func:`measure` in a process of its own, with the code of a checkout."""
    words = [sys.executable, __file__, "--measure", *what]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["digits:sum", "digits:voice"])
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        name, rule, seed = args.measure
        print(json.dumps(measure(name, rule, int(seed))))
        return
    sides = {"now": ROOT} | ({"before": args.against.resolve()} if args.against else {})
    for which in args.tasks:
        total = {side: defaultdict(float) for side in sides}
        for seed in args.seeds:
            for side, checkout in sides.items():
                found = run(checkout, *which.split(":"), seed)
                for phase, seconds in found["seconds"].items():
                    total[side][phase] += seconds / len(args.seeds)
                    total[side]["search"] += (phase != "training") * seconds / len(args.seeds)
                total[side]["peak_mib"] = max(total[side]["peak_mib"], found["peak_mib"])
        row = {"task": which, "seeds": len(args.seeds)}
        for what in ("search", *PHASES, "peak_mib"):
            for side in sides:
                row[f"{what}_{side}"] = round(total[side][what], 2)
            if args.against:
                row[f"{what}_ratio"] = round(total["now"][what] / total["before"][what], 3)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
