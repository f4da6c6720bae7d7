"""phi, which lifts the student's features to the teacher's shape so that they can be compared."""

import torch
from torch import nn

from common.networks import winograd

Tensor = torch.Tensor


class Decoder(nn.Sequential):
    """Two 3x3 convolutions with ReLU: (B, student_channels, H, W) -> (B, teacher_channels, H, W)."""

    def __init__(self, student_channels: int, hidden: int, teacher_channels: int):
        super().__init__(
            nn.Conv2d(student_channels, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, z: Tensor) -> Tensor:
        height, width = z.shape[2:]
        small = height == width <= winograd.LARGEST
        if not small or z.device.type != "cpu" or torch.is_autocast_enabled("cpu"):  # others have faster units
            return super().forward(z)
        maps = z.permute(2, 3, 0, 1).reshape(height * width, *z.shape[:2])
        for convolution in (self[0], self[2]):
            maps = winograd.convolve(maps, convolution.weight, convolution.bias, height).relu_()
        return maps.unflatten(0, (height, width)).permute(2, 3, 0, 1)
