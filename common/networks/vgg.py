"""VGG11 and its compressed student, at 64x64.

Teacher: torchvision's `vgg11`, without batch norm ("Very Deep Convolutional Networks for Large-Scale Image
Recognition", https://arxiv.org/abs/1409.1556). Student: three convolutions, 79x fewer parameters and MACs.
"""

from torch import nn
from torchvision import models

from common.networks.decoder import decoder as build_decoder
from common.networks.split import SequentialNet

IMAGE_SIZE = 64


def teacher(num_classes: int) -> SequentialNet:
    """torchvision's VGG11; z is (B, 512, 2, 2), which its average pool blends to 7x7."""
    net = models.vgg11(num_classes=num_classes)
    return SequentialNet(net.features, 7, net.classifier)


def student(num_classes: int) -> SequentialNet:
    """CompVGG11; z is (B, 64, 8, 8), averaged to 7x7. Max pooling and ReLU commute; pooling first is cheaper."""
    features = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.MaxPool2d(4, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.MaxPool2d(2, 2),
        nn.ReLU(inplace=True),
    )
    return SequentialNet(features, 7, [nn.Linear(64 * 7 * 7, 512), nn.ReLU(inplace=True), nn.Linear(512, num_classes)])


def decoder() -> nn.Sequential:
    """phi: (B, 64, 8, 8) -> (B, 512, 7, 7)."""
    return build_decoder(64, 256, 512, pool=7)
