"""The backbones of the paper's tasks, with the parameter names of the published checkpoints."""

from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from .hcn import HCN
from .inflated_resnet import InflatedResNet50
from .maxout import MaxoutMLP
from .resnext3d import ResNeXt3D
from .vgg import VGG19
