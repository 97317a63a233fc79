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

from importlib import import_module as _import_module

from .architecture import ArchitectureWeights, SelectionError, most_probable
from .backbones.tap import Tap, tap
from .cells import RELAXATIONS, Cell, MixedCell, RelaxationError, register_relaxation
from .config import ConfigError, SearchSettings, Settings, __version__
from .draw import (
    DrawError,
    Picture,
    draw,
    draw_comparison,
    draw_curves,
    draw_differences,
    draw_frontiers,
    draw_heatmaps,
    draw_results,
    draw_trajectories,
)
from .errors import BmnasError, SourceError
from .experiments import collect, load_result, save_run, sweep, write_report
from .features import FeatureBank
from .genotype import (
    DEFAULT_OPERATIONS,
    OPERATIONS,
    CellGenotype,
    Change,
    Genotype,
    GenotypeError,
    OperationError,
    StepGenotype,
)
from .history import Comparison, HistoryError, SearchHistory
from .metrics import METRICS, register_metric
from .networks import FeatureError, FusionNetwork, Hypernet, count_parameters, pool
from .ops import register_operation
from .probe import probe
from .progress import progress_bar
from .runtime import DeviceError, resolve_device
from .search import Search, SearchConfig, SearchError, SearchState
from .selection import SELECTIONS, SearchView, Selection, derive, register_selection
from .signature import Signature
from .tasks import (
    TASKS,
    DataError,
    DatasetInputs,
    DataWarning,
    Modality,
    Split,
    Task,
    TaskError,
    load_features,
    load_task,
    register_rule,
    register_task,
)
from .train import TrainConfig, TrainError, evaluate, fit, network_cost, train, train_backbone

#: Imported when first asked for: a search in a script needs no widgets and no tables.
_LATER = {
    ".baselines": ("BASELINES", "BaselineContext", "BaselineError", "compare", "register_baseline"),
    ".cross_validation": ("CrossValidation", "cross_validate"),
    ".benchmark": ("STRATEGIES", "StrategyError", "TabularBenchmark", "register_strategy"),
    ".export": ("ExportError", "export_program"),
    ".network_files": ("NetworkError", "load_network", "save_network"),
    ".prediction": ("PredictionError", "predict"),
    ".network_report": ("Report", "report"),
    ".source": ("network_source",),
    ".widgets": ("GenotypeEditor", "Scoreboard", "SearchStepper", "interactive", "side_by_side"),
}


def __getattr__(name: str):
    for module, names in _LATER.items():
        if name in names:
            return getattr(_import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals()}.union(*_LATER.values()))
