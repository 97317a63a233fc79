"""What `import bmnas_core` offers: read by type checkers, and by `__init__.py`."""

from .architecture import ArchitectureWeights, SelectionError, most_probable
from .backbones.tap import Tap, tap
from .baselines import BASELINES, BaselineContext, BaselineError, compare, register_baseline
from .benchmark import STRATEGIES, StrategyError, TabularBenchmark, register_strategy
from .cells import RELAXATIONS, Cell, MixedCell, RelaxationError, register_relaxation
from .config import ConfigError, SearchSettings, Settings, __version__
from .cross_validation import CrossValidation, cross_validate
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
from .export import ExportError, export_program
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
from .network_files import NetworkError, load_network, save_network
from .network_report import Report, report
from .networks import FeatureError, FusionNetwork, Hypernet, count_parameters, pool
from .ops import register_operation
from .prediction import PredictionError, predict
from .probe import probe
from .progress import progress_bar
from .runtime import DeviceError, resolve_device
from .search import Search, SearchConfig, SearchError, SearchState
from .selection import SELECTIONS, SearchView, Selection, derive, register_selection
from .signature import Signature
from .source import network_source
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
from .widgets import GenotypeEditor, Scoreboard, SearchStepper, interactive, side_by_side
