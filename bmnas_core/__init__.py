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

import lazy_loader

from . import autosave  # noqa: F401 - takes the folder of its run from the environment
from .config import __version__

# Modules are imported when something of theirs is first asked for, so that what needs no PyTorch,
# such as `bmnas run`, starts without it. The names are listed in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
