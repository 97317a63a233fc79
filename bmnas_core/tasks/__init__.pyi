"""What `bmnas_core.tasks` offers: read by type checkers, and by `__init__.py`."""

from .dataset_inputs import DatasetInputs
from .files import DATA_SETS
from .inputs import DataError, DataWarning, FileInputs
from .load import load_features
from .rules import RULES, DigitPair, register_rule
from .task import TASKS, Modality, Split, Task, TaskError, load_task, register_task
