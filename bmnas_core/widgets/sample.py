"""One sample of validation on its way through a hypernet."""

from __future__ import annotations

import base64
import io
import wave
from collections import Counter
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from ..genotype import step_name
from ..search import Search
from ..tasks.audio import FRAMES, MELS, SAMPLE_RATE, wave_of
from ..tasks.digits import label_of
from ..tasks.rules import RULES

SPLIT = "validation"
#: Samples that a menu offers: of each class of a modality's items, or without classes in all.
EACH, WITHOUT = 3, 30
#: Samples beside the one that is shown, where BatchNorm needs them.
OTHERS = 31


def menus(search: Search) -> list[dict]:
    """For each modality its name and what may be shown of it: rows of validation, with labels.

    If its items have classes of their own, such as the digit they show, labels name these.
    """
    (index, _), found = search.bank.splits[SPLIT], []
    for m, modality in enumerate(search.task.modalities):
        items, options, seen = index[:, m].tolist(), [], Counter()
        by_class = modality.classes is not None
        if by_class:
            classes, shown = modality.classes.tolist(), set()
            for row, item in enumerate(items):
                if item >= 0 and item not in shown and seen[classes[item]] < EACH:
                    seen[classes[item]] += 1
                    shown.add(item)
                    options.append({"row": row, "label": f"{classes[item]} (item {item})"})
            options.sort(key=lambda option: classes[items[option["row"]]])
        else:
            there = [row for row, item in enumerate(items) if item >= 0]
            options = [{"row": row, "label": f"sample {row}"} for row in there[:WITHOUT]]
        found.append({"name": modality.name, "options": options, "by_class": by_class})
    return found


def preview(search: Search, m: int, row: int) -> dict:
    """What can be seen and heard of a modality of a sample: ``image`` and ``sound`` as data URLs.

    Inputs that are no pictures show nothing, and only spectrograms like those of the digits sound.
    """
    inputs = search.task.modalities[m].inputs
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or inputs.shape[1] not in (1, 3):
        return {}
    values = inputs[int(search.bank.splits[SPLIT][0][row, m])].float()
    shown = {"image": _png(values)}
    if tuple(values.shape) == (1, MELS, FRAMES):
        shown["sound"] = _wav(wave_of(values[0]))
    return shown


def flow(search: Search, rows: list[int]) -> dict:
    """The values of all nodes of the hypernet for a sample, and what it predicts.

    ``rows`` name a sample of validation for each modality. ``nodes`` are (L, C) values each, as
    int8, scaled by the largest; ``made`` is what each operation of a step makes of the ``inputs``
    of that step; ``scores`` are probabilities, or the values of a regression in their units.
    """
    task, net = search.task, search.hypernet
    features = _features(search, rows)
    states: dict[str, Tensor] = {}
    taken: dict[str, tuple] = {}  # inputs of steps

    def keep(name: str):
        return lambda _module, _inputs, output: states.__setitem__(name, output[0])

    def keep_inputs(i: int):
        def hook(_module, inputs):
            states.update({f"Cell {i} {port}": x[0] for port, x in zip("XY", inputs, strict=True)})

        return hook

    def keep_step(name: str):
        return lambda _module, inputs: taken.__setitem__(name, inputs[1:])

    def keep_features(_module, _inputs, output):
        states.update(zip(net.reshape.channels, output[0].unbind(1), strict=True))

    training = net.training
    with ExitStack() as hooks, torch.no_grad():
        hooks.callback(net.train, training)
        hooks.enter_context(net.reshape.register_forward_hook(keep_features))
        for i, cell in enumerate(net.cells, 1):
            hooks.enter_context(cell.register_forward_pre_hook(keep_inputs(i)))
            for j, step in enumerate(cell.steps):
                name = f"Cell {i} {step_name(j)}"
                hooks.enter_context(step.register_forward_pre_hook(keep_step(f"c{i}_s{j + 1}")))
                hooks.enter_context(step.register_forward_hook(keep(name)))
            hooks.enter_context(cell.register_forward_hook(keep(f"Cell {i} Z")))
        outputs = net.eval()(features)[0]
        made = {
            f"c{i}_s{j}": {
                op: _bytes(step.alone(op, *taken[f"c{i}_s{j}"])[0]) for op in step.operations
            }
            for i, cell in enumerate(net.cells, 1)
            for j, step in enumerate(cell.steps, 1)
        }
    kind = task.label_kind
    if kind == "values":
        scores = task.targets.in_units(outputs)
    else:
        scores = outputs.softmax(0) if kind == "classes" else outputs.sigmoid()
    return {
        "step": search.step,
        "rows": rows,
        "nodes": [{"name": name, **_bytes(values)} for name, values in states.items()],
        "made": made,
        "inputs": {
            name: dict(zip("xy", (_bytes(x[0]) for x in pair), strict=True))
            for name, pair in taken.items()
        },
        "kind": kind,
        "names": list(task.class_names or map(str, range(len(outputs)))),
        "scores": scores.flatten().tolist(),
        "label": _label(search, rows),
    }


def _features(search: Search, rows: list[int]) -> dict[str, Tensor]:
    """Features of a batch whose first sample is the one of ``rows``.

    It is alone in it, unless BatchNorm takes its statistics from each batch.
    """
    modalities = search.task.modalities
    column = {name: m for m, modality in enumerate(modalities) for name in modality.channels}
    others = torch.arange(OTHERS if search.config.sampling == "single_path" else 0)
    others = others[: search.bank.size(SPLIT)]
    batches = [search.bank.batch(SPLIT, torch.cat([torch.tensor([r]), others]))[0] for r in rows]
    return {name: batches[m][name] for name, m in column.items()}


def _label(search: Search, rows: list[int]) -> int | None:
    """The class of what is shown, if it is known."""
    task, (index, labels) = search.task, search.bank.splits[SPLIT]
    if task.label_kind != "classes":
        return None
    if len(set(rows)) == 1:
        return int(labels[rows[0]])
    known = task.name == "digits" and task.rule in RULES and task.modalities[0].classes is not None
    items = [int(index[row, m]) for m, row in enumerate(rows)]
    return label_of(task, *items) if known else None


def _bytes(values: Tensor) -> dict:
    """Values (L, C) as int8, scaled by the largest, and their size."""
    values = values.float().cpu().numpy()
    most = float(np.abs(values).max()) or 1.0
    data = np.rint(values / most * 127).astype(np.int8)
    size = {"rows": data.shape[0], "columns": data.shape[1], "most": round(most, 3)}
    return size | {"data": base64.b64encode(data.tobytes()).decode()}


def _png(values: Tensor) -> str:
    """(1 or 3, H, W) as the data URL of a PNG."""
    from matplotlib.image import imsave

    low, high = float(values.min()), float(values.max())
    values = ((values - low) / ((high - low) or 1)).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    if values.shape[2] == 1:
        imsave(file, values[..., 0], cmap="gray", format="png", vmin=0, vmax=1)
    else:
        imsave(file, values, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _wav(samples: Tensor) -> str:
    """(samples,) from -1 to 1 as the data URL of a WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes((samples * 32767).to(torch.int16).numpy().tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
