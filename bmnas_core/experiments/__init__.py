"""Notebooks as experiments: set their parameters, run them unattended, keep what they found."""

from .collect import Collection, collect, t_interval
from .folder import ResumeError
from .parameters import (
    NotebookError,
    Parameter,
    ParameterError,
    notebook_parameters,
    parse_parameters,
)
from .report import write_report
from .reproduce import Number, Reproduction, reproduce
from .results import (
    BASELINE_FIELDS,
    RESULT_FIELDS,
    RESULT_FILES,
    ResultError,
    best_first,
    load_result,
    load_run,
    networks,
    run_title,
    save_run,
)
from .run import RunError, RunInterrupted, RunWarning, run
from .spec import SpecError, read_spec
from .sweep import sweep
from .workers import SweepError
