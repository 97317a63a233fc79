"""What `bmnas_core.tasks` offers: read by type checkers, and by `__init__.py`.

``X as X`` is how a stub says that X is for others.
"""

from .dataset_inputs import DatasetInputs as DatasetInputs
from .files import DATA_SETS as DATA_SETS
from .inputs import DataError as DataError
from .inputs import DataWarning as DataWarning
from .inputs import FileInputs as FileInputs
from .load import load_features as load_features
from .rules import RULES as RULES
from .rules import DigitPair as DigitPair
from .rules import register_rule as register_rule
from .task import TASKS as TASKS
from .task import Modality as Modality
from .task import Split as Split
from .task import Task as Task
from .task import TaskError as TaskError
from .task import load_task as load_task
from .task import register_task as register_task
