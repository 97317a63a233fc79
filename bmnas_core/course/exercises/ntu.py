"""Exercises of notebook 11, NTU RGB+D."""

import torch
from torch import Tensor, nn

from ...networks import count_parameters
from ...ops import Reshape
from ...tasks.paper.ntu import TEST_CAMERA, VALIDATION_SUBJECTS
from ...tasks.paper.ntu_readers import JOINTS
from ..checks import exercise
from . import answers

#: The hips, joints 13 and 17 in the data set's count.
LEFT_HIP, RIGHT_HIP = 12, 16


def _turned_to_the_front(joints: Tensor) -> Tensor:
    across = joints[:, :, LEFT_HIP] - joints[:, :, RIGHT_HIP]
    cos, sin = nn.functional.normalize(across[..., [0, 2]], dim=-1).unsqueeze(2).unbind(-1)
    x, y, z = joints.unbind(-1)
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], dim=-1)


@exercise(
    "11.1",
    "Let d = left hip − right hip, of each frame. A turn about the vertical axis by an angle with "
    "cosine c and sine s takes (x, y, z) to (c·x + s·z, y, c·z − s·x).",
    "The z of d must become 0 and its x positive: c and s are the x and z of d, divided by the "
    "length of (x, z).",
    "`joints[..., 0]` has the shape (N, T, 25); c and s need the shape (N, T, 1).",
)
def turned_to_the_front(answer):
    cases = [(torch.randn(n, t, JOINTS, 3),) for n, t in ((4, 6), (1, 32))]
    return answers.function(answer, _turned_to_the_front, cases, 1e-4)


def _split_by_view(name: str) -> str:
    if int(name[5:8]) == TEST_CAMERA:
        return "test"
    return "validation" if int(name[9:12]) in VALIDATION_SUBJECTS else "train"


@exercise(
    "11.2",
    "In S001C002P003R002A013 the camera is `int(name[5:8])`, the subject `int(name[9:12])`.",
    "Ask for the camera first: a clip of camera 1 is tested, whoever is in it.",
    "Of the other two cameras, four subjects validate.",
)
def split_by_view(answer):
    names = [
        f"S001C{camera:03d}P{subject:03d}R001A{action:03d}"
        for camera in (1, 2, 3)
        for subject, action in ((1, 5), (2, 60), (3, 1), (9, 14), (14, 2), (40, 9))
    ]
    return answers.function(answer, _split_by_view, [(name,) for name in names])


@exercise(
    "11.3",
    "What is the probability that neither of the other two clips is in training?",
    "Each of them is not in training with probability 1 − p, independently of the other.",
)
def leak_of_a_random_split(answer):
    cases = [(p,) for p in (0.5, 0.8, 0.2, 0.0, 1.0)]
    return answers.function(answer, lambda p: 1 - (1 - p) ** 2, cases, 1e-9)


@exercise(
    "11.4",
    "The convolution of one tap is a matrix of C_i × C, and a bias for each of the C outputs.",
    "BatchNorm has a scale and a shift for each channel. ReLU and dropout have no parameters.",
)
def parameters_of_reshape(answer):
    cases = [(2048, 128), (512, 128), (64, 32), (3, 7)]
    return answers.function(answer, lambda c, C: count_parameters(Reshape(c, C, 0.0)), cases)


@exercise(
    "11.5",
    "Write W1·(X + Y) + W2·(X + 2Y) as (…)·X + (…)·Y.",
    "W1 + W2 must be A, and W1 + 2·W2 must be B. Subtract one equation from the other.",
)
def two_sums_are_a_linear_layer(answer):
    cases = [(torch.randn(n, n), torch.randn(n, n)) for n in (3, 8)]
    return answers.function(answer, lambda A, B: torch.stack([2 * A - B, B - A]), cases, 1e-5)
