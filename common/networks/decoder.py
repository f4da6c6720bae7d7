"""phi, which lifts the student's features to the teacher's shape so that they can be compared."""

from torch import nn

from common.networks.winograd import Conv3x3


def decoder(student_channels: int, hidden: int, teacher_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU: (B, student_channels, H, W) -> (B, teacher_channels, H, W)."""
    return nn.Sequential(
        Conv3x3(student_channels, hidden),
        nn.ReLU(inplace=True),
        Conv3x3(hidden, teacher_channels),
        nn.ReLU(inplace=True),
    )
