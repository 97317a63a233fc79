"""Networks of random genotypes over features of every shape, for tests of files and source."""

import copy
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from bmnas_core import CellGenotype, FusionNetwork, Genotype, Signature, StepGenotype, pool
from bmnas_core.genotype import OPERATIONS, cell_predecessors, step_predecessors

#: Axes behind (n, C) of features that each way of pooling takes.
AXES = {"grid": (0, 1, 2), "time": (0, 1, 2, 3)}


@dataclass
class Example:
    """A network, what its task would give it (n samples), and the same pooled."""

    net: FusionNetwork
    features: dict[str, Tensor]
    pooled: dict[str, Tensor]

    def values(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the network predicts; of regression, values that are not standardised."""
        net, signature = copy.deepcopy(self.net).to(dtype), self.net.signature
        with torch.no_grad():
            outputs = net({name: x.to(dtype) for name, x in self.pooled.items()})
        if not signature.scale:
            return outputs
        return outputs * outputs.new_tensor(signature.scale) + outputs.new_tensor(signature.mean)


def random_example(seed: int, n: int = 7) -> Example:
    """Two to four modalities, one to three Cells of one to three steps, all kinds of features.

    BatchNorms have seen data. Every third one has samples that lack a modality.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    features, pooling, shapes = {}, {}, {}
    for modality in rng.sample(["Image", "Audio", "Text", "Video"], rng.randint(2, 4)):
        pooling[modality] = rng.choices(["grid", "time"])[0]
        features[modality] = tuple(f"{modality}_{i + 1}" for i in range(rng.randint(1, 3)))
        for name in features[modality]:
            axes = rng.sample(AXES[pooling[modality]], 1)[0]
            shapes[name] = (rng.randint(1, 9), *(rng.randint(1, 9) for _ in range(axes)))
    cells = []
    for i in range(rng.randint(1, 3)):
        steps = [
            StepGenotype(
                rng.sample(sorted(OPERATIONS), 1)[0], tuple(rng.sample(step_predecessors(j), 2))
            )
            for j in range(rng.randint(1, 3))
        ]
        cells.append(CellGenotype(tuple(rng.sample(cell_predecessors(tuple(shapes), i), 2)), steps))
    classes, labels = rng.randint(2, 15), rng.sample(["classes", "multi-label", "values"], 1)[0]
    numbers = [rng.uniform(0.1, 9) for _ in range(classes)] if labels == "values" else []
    C, L = rng.randint(4, 24), rng.randint(1, 9)
    net = FusionNetwork(
        Genotype(tuple(shapes), tuple(cells)),
        {name: shape[0] for name, shape in shapes.items()},
        classes,
        C=C,
        L=L,
        dropout=0.1,
        gaps=seed % 3 == 0,
    )
    net.signature = Signature(
        task=f"task {seed}",
        features=features,
        pooling=pooling,
        labels=labels,
        class_names=tuple(f"name {k}" for k in range(classes)) if seed % 2 else (),
        mean=numbers,
        scale=numbers[::-1],
    )
    given = {name: torch.randn(n, *shape) for name, shape in shapes.items()}
    for m, names in enumerate(features.values() if net.gaps else ()):
        for name in names:
            given[name][m :: 2 * len(features)] = torch.nan
    pooled = {k: pool(x, L, net.signature.pooling_of(k)) for k, x in given.items()}
    for _ in range(3):
        net({name: values + torch.randn(values.shape) for name, values in pooled.items()})
    return Example(net.eval(), given, pooled)
