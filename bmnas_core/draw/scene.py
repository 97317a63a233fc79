"""A search for the browser: its pictures once, and after that only numbers.

The pictures of all states of a search differ only in their weights. So the browser gets them once,
and what each weight changes in them; then, for each state, the weights and its genotype's number;
and each genotype once, as a picture. ``stage.js`` does the rest.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..genotype import OPERATIONS, Genotype, cell_name, step_name
from . import genotypes as graphs
from . import hypernets

if TYPE_CHECKING:
    from ..architecture import ArchitectureWeights
    from ..search_state import SearchState

#: What draws a search in the browser, and its style.
SCRIPT, STYLE = (Path(__file__).with_name(f"stage.{kind}") for kind in ("js", "css"))
#: Weights are sent as integers: weight × RESOLUTION.
RESOLUTION = 100_000


class SceneData:
    """What the browser is sent of a search.

    Args:
        state: any state of the search, for its pictures.
        about: the search's task and settings, as :attr:`SearchHistory.about` has them.
        rank: gives a genotype's rank among ``size`` architectures; 1 is the best.

    Attributes:
        scene: the pictures, and what each weight changes in them.
        genotypes: all that :meth:`frame` has met, in order, with their pictures.
    """

    def __init__(
        self,
        state: SearchState,
        about: dict,
        rank: Callable[[Genotype], int] | None = None,
        size: int = 0,
    ):
        config, rule = about["config"], about["rule"]
        self._fields, self._rank = fields(state.weights), rank
        self._numbers: dict[Genotype, int] = {}
        self.genotypes: list[dict] = []
        self.scene = {
            "graph": hypernets.graph(*hypernets.weights_of(state)).picture().svg,
            "heat": hypernets.draw_heatmaps(state).svg,
            "fields": self._fields,
            "resolution": RESOLUTION,
            "operations": operations(state.weights, config),
            "title": f"{about['task']}{f', rule {rule}' if rule else ''}",
            "settings": f"relaxation {config['relaxation']}, seed {about['seed']}",
            "metric": about["metric"],
            "limits": about.get("limits") or [None, None],
            "size": size,
            "sizes": [len(own) for own in state.weights.gamma],  # steps of each Cell
        }

    def frame(self, state: SearchState) -> dict:
        """A state in numbers: its step, losses and score, its genotype's number, and its weights.

        The genotype is drawn if it is a new one.
        """
        genotype = state.genotype
        if genotype not in self._numbers:
            self._numbers[genotype] = len(self._numbers)
            rank = self._rank(genotype) if self._rank else None
            svg = graphs.graph(genotype).picture().svg
            self.genotypes.append({"svg": svg, "picks": self.picks(genotype), "rank": rank})
        return {
            "step": state.step,
            "text": str(state),
            "train": _short(state.train_loss),
            "loss": _short(state.val_loss),
            "score": _short(state.val_score),
            "genotype": self._numbers[genotype],
            "weights": numbers(state.weights),
        }

    def picks(self, genotype: Genotype) -> list[int]:
        """What a genotype takes of each decision, as :func:`picks` says it."""
        return picks(genotype, self._fields)

    def load(self, states: Iterable[SearchState]) -> dict:
        """All of a search: what ``stage.js`` loads."""
        frames = list(map(self.frame, states))
        return {"scene": self.scene, "frames": frames, "genotypes": self.genotypes}


def fields(weights: ArchitectureWeights) -> list[dict]:
    """All weights of a hypernet, in the order of :func:`numbers`.

    Each is a dictionary:

    * ``letter``: ``"α"``, ``"β"`` or ``"γ"``
    * ``decision``, ``cell``, ``step``: their numbers; the step is 0 for the inputs of a Cell
    * ``what``: what is decided, as :class:`~bmnas_core.genotype.Change` names it
    * ``name``, ``label``: of the candidate
    * ``tip``: all this in words
    * ``graph``, ``heat``, ``net``: ids of what shows it in the pictures of the hypernet, of the
      weights, and, if the candidate is picked, of the derived network
    """
    found: list[dict] = []
    for i in range(len(weights.gamma)):
        me, steps = f"c{i + 1}", list(map(step_name, range(len(weights.gamma[i]))))
        outer = {name: f"f{k}" for k, name in enumerate(weights.features)}
        outer |= {cell_name(k): f"c{k + 1}_z" for k in range(i)}
        nodes = {"X": f"{me}_x", "Y": f"{me}_y"}  # features may have these names too
        nodes |= {name: f"{me}_s{j}" for j, name in enumerate(steps, 1)}
        for k, decision in enumerate(hypernets.decisions(weights, i)):
            letter, step, heads, names, labels, _ = decision
            for h, head in enumerate(heads):
                number = found[-1]["decision"] + 1 if found else 0
                column = 0 if weights.shared and letter != "γ" else h
                for r, (name, label) in enumerate(zip(names, labels, strict=True)):
                    if letter == "α":
                        at, what = 0, head
                        net = graph = f"{outer[name]}-{nodes[head]}"
                        tip = f"{name} → Cell {i + 1} {head}"
                    elif letter == "β":
                        at, what = steps.index(step) + 1, f"{head} input"
                        net = f"{nodes[name]}-{nodes[step]}"
                        graph, tip = f"{net}-{h + 1}", f"{name} → {step}, {head} input"
                        tip = f"Cell {i + 1}: {tip}"
                    else:
                        at, what = h + 1, "operation"
                        net = nodes[head]
                        graph, tip = f"{net}_op{r}", f"Cell {i + 1}: {head} is {label}"
                    found.append(
                        {"letter": letter, "decision": number, "cell": i + 1, "step": at,
                         "what": what, "name": name, "label": label, "tip": tip, "graph": graph,
                         "heat": f"c{i}_{k}_{column}_{r}", "net": net}
                    )  # fmt: skip
    return found


def numbers(weights: ArchitectureWeights) -> list[int]:
    """All weights as integers, in parts of 1 / ``RESOLUTION``, in the order of :func:`fields`."""
    values = (
        np.ravel(values)
        for i in range(len(weights.gamma))
        for *_, values in hypernets.decisions(weights, i)
    )
    return np.rint(np.concatenate([*values]) * RESOLUTION).astype(int).tolist()


def picks(genotype: Genotype, fields: list[dict]) -> list[int]:
    """For each decision the number of the field that ``genotype`` takes, or -1."""
    taken = {}
    for i, cell in enumerate(genotype.cells, 1):
        taken |= {(i, 0, port): name for port, name in zip("XY", cell.inputs, strict=True)}
        for j, step in enumerate(cell.steps, 1):
            ports = (f"{port} input" for port in hypernets.PORTS)
            taken |= {(i, j, port): name for port, name in zip(ports, step.inputs, strict=True)}
            taken[i, j, "operation"] = step.op
    found = [-1] * (fields[-1]["decision"] + 1)
    for number, field in enumerate(fields):
        if taken.get((field["cell"], field["step"], field["what"])) == field["name"]:
            found[field["decision"]] = number
    return found


def operations(weights: ArchitectureWeights, config: dict) -> dict[str, dict]:
    """Of each operation whether it is symmetric, what it computes, and on what."""
    C, L = config.get("C", 0) // config.get("partial", 1), config.get("L")
    return {
        name: {
            "symmetric": OPERATIONS[name].symmetric,
            "about": inspect.cleandoc(OPERATIONS[name].__doc__ or "").partition("\n\n")[0],
            "shapes": f"x, y and the result: {C} channels × {L} positions",
        }
        for name in weights.operations
    }


def _short(value: float | None) -> float | None:
    """A loss or score in six digits; None for one that is not finite, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
