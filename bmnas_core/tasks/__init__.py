"""Tasks: data, backbones, metric and settings, one file each. The kit's are imported on demand."""

import lazy_loader

# As in `bmnas_core`: where the kit's files are can be asked without PyTorch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
