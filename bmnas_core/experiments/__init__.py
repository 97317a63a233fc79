from .run import *
from .run import (
    collect,
    load_result,
    networks,
    notebook_parameters,
    parse_parameters,
    run,
    save_run,
)
