"""BM-NAS: search, see and train multimodal fusion networks (Yin, Huang, Zhang, AAAI-22).

Data flows one way: task → backbones → :class:`FeatureBank` → :class:`Search` → :class:`Genotype`
→ :class:`FusionNetwork` → result. ::

    import bmnas_core as bm

    task = bm.load_task("digits", rule="sum")
    search = bm.Search(task, seed=0)
    for state in search:
        print(state.step, state.train_loss, state.val_loss)
    bm.draw(search.best_genotype)
    net, history = bm.train(search.best_genotype, task, seed=0)
    bm.evaluate(net, task, split="test")
"""

from importlib import import_module

from .cells import Cell, MixedCell, register_relaxation
from .config import BmnasError, ConfigError, DeviceError, __version__, resolve_device
from .derive import DeriveError, derive, register_derivation
from .draw import (
    DrawError,
    Picture,
    draw,
    draw_comparison,
    draw_curves,
    draw_heatmaps,
    draw_results,
    draw_trajectories,
)
from .experiments import load_result, save_run
from .features import FeatureBank
from .genotype import CellGenotype, Change, Genotype, GenotypeError, StepGenotype
from .networks import FeatureError, FusionNetwork, Hypernet, count_parameters, pool
from .ops import OperationError, register_operation
from .progress import progress_bar
from .search import Search, SearchConfig, SearchError, SearchState
from .tasks import (
    DataError,
    DataWarning,
    Modality,
    Split,
    Task,
    TaskError,
    load_task,
    register_task,
)
from .trace import Comparison, Trace, TraceError
from .train import (
    TrainConfig,
    TrainError,
    evaluate,
    fit,
    network_cost,
    train,
    train_backbone,
)


def __getattr__(name: str):
    """Imported when first asked for: a search in a script needs no widgets and no tables."""
    if name in _LATER:
        return getattr(import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_WIDGETS = ("GenotypeEditor", "Scoreboard", "SearchStepper", "by_hand", "side_by_side")
_LATER = {**dict.fromkeys(_WIDGETS, ".widgets"), "GroundTruth": ".groundtruth"}

__all__ = [
    "__version__",
    "BmnasError",
    "Cell",
    "CellGenotype",
    "Change",
    "Comparison",
    "ConfigError",
    "DataError",
    "DataWarning",
    "DeriveError",
    "DeviceError",
    "DrawError",
    "FeatureBank",
    "FeatureError",
    "FusionNetwork",
    "Genotype",
    "GenotypeEditor",
    "GenotypeError",
    "GroundTruth",
    "Hypernet",
    "MixedCell",
    "Modality",
    "OperationError",
    "Picture",
    "Scoreboard",
    "Search",
    "SearchConfig",
    "SearchError",
    "SearchState",
    "SearchStepper",
    "Split",
    "StepGenotype",
    "Task",
    "TaskError",
    "Trace",
    "TraceError",
    "TrainConfig",
    "TrainError",
    "by_hand",
    "count_parameters",
    "derive",
    "draw",
    "draw_comparison",
    "draw_curves",
    "draw_heatmaps",
    "draw_results",
    "draw_trajectories",
    "evaluate",
    "fit",
    "load_result",
    "load_task",
    "network_cost",
    "pool",
    "progress_bar",
    "register_derivation",
    "register_operation",
    "register_relaxation",
    "register_task",
    "resolve_device",
    "save_run",
    "side_by_side",
    "train",
    "train_backbone",
]
