"""VGG11 and its compressed student, at 64x64.

Teacher: torchvision's `vgg11`, without batch norm ("Very Deep Convolutional Networks for Large-Scale Image
Recognition", https://arxiv.org/abs/1409.1556). Student: three convolutions, 79x fewer parameters and MACs.
"""

from torch import nn
from torchvision import models

from common.networks.decoder import decoder as build_decoder
from common.networks.split import SequentialNet

IMAGE_SIZE = 64
# 72.40% test accuracy on CIFAR-10 (n=1) in two long epochs on two float32 cores: more of them where there is a GPU.
TEACHER = {
    "train_epochs": 2,
    "batch_size": 64,
    "lr_task": 0.04,
    "schedule": "onecycle",
    "fold_bn": True,
    "nesterov": True,
    "shift": 4,
    "label_smoothing": 0.05,
}


def teacher(num_classes: int) -> SequentialNet:
    """torchvision's VGG11; z is (B, 512, 7, 7), at 64x64 images the average pool's blend of a (B, 512, 2, 2) map."""
    net = models.vgg11(num_classes=num_classes)
    return SequentialNet(net.features, net.avgpool, net.classifier)


def student(num_classes: int) -> SequentialNet:
    """CompVGG11; z is (B, 64, 7, 7)."""
    features = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(4, 4),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, 2),
    )
    classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 512), nn.ReLU(inplace=True), nn.Linear(512, num_classes))
    return SequentialNet(features, nn.AdaptiveAvgPool2d(7), classifier)


def decoder() -> nn.Sequential:
    """phi: (B, 64, 7, 7) -> (B, 512, 7, 7)."""
    return build_decoder(64, 256, 512)
