"""AlexNet and its compressed student, at 64x64.

Teacher: torchvision's `alexnet` ("One weird trick for parallelizing convolutional neural networks",
https://arxiv.org/abs/1404.5997). Student: two small convolutions, 95x fewer parameters and 69x fewer MACs.
"""

from torch import nn
from torchvision import models

from common.networks.decoder import decoder as build_decoder
from common.networks.split import SequentialNet

IMAGE_SIZE = 64


def teacher(num_classes: int) -> SequentialNet:
    """torchvision's AlexNet; z is (B, 256, 1, 1), which its average pool repeats to 6x6."""
    net = models.alexnet(num_classes=num_classes)
    return SequentialNet(net.features, 6, net.classifier)


def student(num_classes: int) -> SequentialNet:
    """CompAlexNet; z is (B, 32, 3, 3), averaged to 6x6. Max pooling and ReLU commute; pooling first is cheaper."""
    features = nn.Sequential(
        nn.Conv2d(3, 8, 11, stride=4, padding=2),
        nn.MaxPool2d(3, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 32, 3, padding=1),
        nn.MaxPool2d(3, 2),
        nn.ReLU(inplace=True),
    )
    return SequentialNet(features, 6, [nn.Linear(32 * 6 * 6, 512), nn.ReLU(inplace=True), nn.Linear(512, num_classes)])


def decoder() -> nn.Sequential:
    """phi: (B, 32, 3, 3) -> (B, 256, 6, 6)."""
    return build_decoder(32, 128, 256, pool=6)
