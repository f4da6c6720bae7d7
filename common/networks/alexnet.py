"""AlexNet and its compressed student, at 64x64.

Teacher: torchvision's `alexnet` ("One weird trick for parallelizing convolutional neural networks",
https://arxiv.org/abs/1404.5997). Student: two small convolutions, 95x fewer parameters and 69x fewer MACs.
"""

from torch import nn
from torchvision import models

from common.networks.decoder import decoder as build_decoder
from common.networks.split import SequentialNet

IMAGE_SIZE = 64
# 81.31% test accuracy on CIFAR-10 in 32 minutes on two float32 cores (n=1); the paper's schedule has 100 epochs.
TEACHER = {
    "train_epochs": 11,
    "batch_size": 256,
    "lr_task": 0.1,
    "schedule": "onecycle",
    "fold_bn": True,
    "nesterov": True,
    "shift": 6,
    "label_smoothing": 0.05,
}


def teacher(num_classes: int) -> SequentialNet:
    """torchvision's AlexNet; its features are (B, 256, 6, 6), at 64x64 images 36 copies of z (B, 256, 1, 1)."""
    net = models.alexnet(num_classes=num_classes)
    return SequentialNet(net.features, net.avgpool, net.classifier)


def student(num_classes: int) -> SequentialNet:
    """CompAlexNet; its features are (B, 32, 6, 6), at 64x64 images each value of z (B, 32, 3, 3) four times."""
    features = nn.Sequential(
        nn.Conv2d(3, 8, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
    )
    classifier = nn.Sequential(nn.Linear(32 * 6 * 6, 512), nn.ReLU(inplace=True), nn.Linear(512, num_classes))
    return SequentialNet(features, nn.AdaptiveAvgPool2d(6), classifier)


def decoder() -> nn.Sequential:
    """phi: (B, 32, 6, 6) -> (B, 256, 6, 6)."""
    return build_decoder(32, 128, 256)
