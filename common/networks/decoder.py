"""phi, which lifts the student's features to the teacher's shape so that they can be compared."""

from collections import OrderedDict

from torch import nn


def decoder(student_channels: int, hidden: int, teacher_channels: int, pool: int | None = None) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU: z (B, student_channels, h, w) -> (B, teacher_channels, H, W).

    `pool`: z is average-pooled to this height and width first, as the teacher's features are; None leaves z as it is.
    """
    layers = [("pool", nn.AdaptiveAvgPool2d(pool))] if pool else []
    layers += [
        ("0", nn.Conv2d(student_channels, hidden, 3, padding=1)),
        ("1", nn.ReLU(inplace=True)),
        ("2", nn.Conv2d(hidden, teacher_channels, 3, padding=1)),
        ("3", nn.ReLU(inplace=True)),
    ]
    return nn.Sequential(OrderedDict(layers))
