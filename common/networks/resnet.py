"""ResNet-18 and ResNet-8 for small images, at 32x32: the project's own pair, without a reference.

"Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385. Teacher: torchvision's `resnet18` with
a 3x3 stem of stride 1 and no first max pool, as in its CIFAR-10 versions. Student: three stages of one basic block.
"""

from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from common.networks.decoder import decoder as build_decoder
from common.networks.split import SplitNet

IMAGE_SIZE = 32


class ResNet(SplitNet):
    """Stem, stages, last pool, linear layer, named as in torchvision: `conv1.weight`, `layer2.0.bn1.bias`, `fc.bias`.

    z is the last stage's map after `last_pool`; the classifier takes the mean over it.
    """

    def __init__(self, channels: int, stages: list[nn.Sequential], last_pool: nn.Module, fc: nn.Linear):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.depth = len(stages)
        for number, stage in enumerate(stages, 1):
            setattr(self, f"layer{number}", stage)
        self.last_pool, self.fc = last_pool, fc
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # as in torchvision
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        for number in range(1, self.depth + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.last_pool(x)

    def classifier(self, z):
        return self.fc(z.mean((2, 3)))


def teacher(num_classes: int) -> ResNet:
    """ResNet-18; z is (B, 512, 4, 4)."""
    net = models.resnet18(num_classes=num_classes)
    return ResNet(64, [net.layer1, net.layer2, net.layer3, net.layer4], nn.Identity(), net.fc)


def student(num_classes: int) -> ResNet:
    """ResNet-8; z is (B, 64, 4, 4), its last 8x8 map averaged 2x2 to the teacher's size."""
    stages = [_stage(16, 16, 1), _stage(16, 32, 2), _stage(32, 64, 2)]
    return ResNet(16, stages, nn.AvgPool2d(2, ceil_mode=True), nn.Linear(64, num_classes))


def _stage(channels: int, width: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    return nn.Sequential(BasicBlock(channels, width, stride, shortcut))


def decoder() -> nn.Sequential:
    """phi: (B, 64, 4, 4) -> (B, 512, 4, 4)."""
    return build_decoder(64, 256, 512)
