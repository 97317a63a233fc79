"""Tasks: data, backbones, metric and settings, one file each. The kit's are imported on demand."""

from .dataset_inputs import DatasetInputs
from .files import DATA_SETS
from .inputs import DataError, DataWarning, FileInputs
from .load import load_features
from .rules import RULES, DigitPair, register_rule
from .task import TASKS, Modality, Split, Task, TaskError, load_task, register_task
