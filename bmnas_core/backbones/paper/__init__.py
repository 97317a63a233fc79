"""The backbones of the paper's tasks, with the parameter names of the published checkpoints."""

from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from .egogesture import ResNeXt3D
from .mmimdb import VGG19, MaxoutMLP
from .ntu import HCN, InflatedResNet50
