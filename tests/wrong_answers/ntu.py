"""Wrong answers to the exercises of notebook 11."""

import torch


def by_subject(name):
    return "validation" if int(name[9:12]) in (2, 5, 9, 14) else "train"


def subject_first(name):
    if int(name[9:12]) in (2, 5, 9, 14):
        return "validation"
    return "test" if int(name[5:8]) == 1 else "train"


def turned_by(joints, sign_of_x, sign_of_z):
    x, y, z = joints.unbind(-1)
    across = x[..., 12:13] - x[..., 16:17], z[..., 12:13] - z[..., 16:17]
    length = torch.hypot(*across)
    c, s = sign_of_x * across[0] / length, sign_of_z * across[1] / length
    return torch.stack([c * x + s * z, y, c * z - s * x], dim=-1)


def turned_away(joints):
    """Left and right the wrong way round."""
    return turned_by(joints, -1, -1)


def turned_back(joints):
    """By the opposite angle."""
    return turned_by(joints, 1, -1)


WRONG = {
    "11.1": [lambda joints: joints, turned_away, turned_back, lambda joints: joints * (1, 1, 0)],
    "11.2": [by_subject, subject_first, lambda name: "train"],
    "11.3": [lambda p: p, lambda p: p**2, lambda p: 2 * p, lambda p: 2 * p * (1 - p)],
    "11.4": [lambda c, C: c * C, lambda c, C: c * C + C, lambda c, C: c * C + 2 * C],
    "11.5": [
        lambda A, B: torch.stack([A, B]),
        lambda A, B: torch.stack([A + B, A + 2 * B]),
        lambda A, B: torch.stack([B - A, 2 * A - B]),
    ],
}
