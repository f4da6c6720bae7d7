"""phi, which lifts the student's features to the teacher's shape so that they can be compared."""

from torch import nn


def decoder(student_channels: int, hidden: int, teacher_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU: (B, student_channels, H, W) -> (B, teacher_channels, H, W)."""
    return nn.Sequential(
        nn.Conv2d(student_channels, hidden, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, teacher_channels, 3, padding=1),
        nn.ReLU(inplace=True),
    )
