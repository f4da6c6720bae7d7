"""`--fold_bn`: batch norm during training, folded into the convolutions afterwards."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common import augment, fast, networks
from common.augment import View
from common.networks import SequentialNet, SplitNet
from common.seeds import initialization

SCALABLE = nn.ReLU | nn.MaxPool2d | nn.AvgPool2d  # they commute with a positive factor


def foldable(model: str, network: str) -> bool:
    """Is the pair's `student` or `teacher` a sequence of layers such as `fold` assumes, so that `--fold_bn` works?

    `features` may have convolutions and SCALABLE layers, `classifier` no weights but linear layers', all with a bias.
    """
    with torch.device("meta"):
        net = getattr(networks.PAIRS[model], network)(2)
    if not isinstance(net, SequentialNet):
        return False
    features, head = list(net.features.children()), list(net.classifier.children())
    weighted = [layer for layer in (*features, *head) if next(layer.parameters(), None) is not None]
    plain = all(isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None for layer in weighted)
    return plain and all(isinstance(layer, nn.Conv2d | SCALABLE) for layer in features)


def with_batch_norm(args, net: SequentialNet, round_number: int) -> SplitNet:
    """A network to train in place of `net`, with fresh weights; `fold` writes it into `net` as the same function.

    These choices affect training, not the resulting architecture:

    - A batch norm follows each convolution (Ioffe & Szegedy 2015; folding as RepVGG does,
      https://arxiv.org/abs/2101.03697): plain AlexNet and VGG start on a plateau, this does not.
    - Initial weights are He's (2015), which preserve the signal's scale through ReLUs; logits start near zero.
    - The first linear layer reads z before the average pool if that only copies or blends few values to many (AlexNet's
      1x1 becomes 6x6): otherwise each value is multiplied by as many weights as it has copies.
    - No dropout before the first linear layer: on copies of a value it hardly drops anything.
    """
    matrix = _pool_matrix(net, args.image_size)
    grows = matrix.shape[0] > matrix.shape[1]
    with initialization(args.seed, "compact", round_number):
        layers = list(copy.deepcopy(net.classifier).cpu().named_children())
        first = next(number for number, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear))
        channels = layers[first][1].in_features // matrix.shape[0]
        width = matrix.shape[1 if grows else 0]
        linear = nn.Linear(channels * width, layers[first][1].out_features)
        head = [("pool", nn.AdaptiveAvgPool2d(net.pool.output_size))] if not grows else []
        tail = [(str(number), layer) for number, (_, layer) in enumerate(layers[first + 1 :], 1)]
        trained = SplitNet()
        trained.features = _normalized(net.features)
        trained.classifier = nn.Sequential(OrderedDict([*head, ("flatten", nn.Flatten()), ("0", linear), *tail]))
        for layer in trained.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(_layers(trained.classifier, nn.Linear)[-1].weight, std=0.01)
    return fast.apply(trained.to(args.device), args.fast)


def to_train(args, net: SplitNet, round_number: int) -> SplitNet:
    """The network to train for `net`: one with batch norm if `--fold_bn` is set, else `net` itself."""
    return with_batch_norm(args, net, round_number) if args.fold_bn else net


@contextmanager
def folded(args, net: SplitNet, this_round) -> Iterator[SplitNet]:
    """Yields the network to train for `net`; if no error is raised, folds it into `net`.

    Where there is no flag `--feature_rms`, as in KD and EnCoDe, features keep their scale.
    """
    trained = to_train(args, net, this_round.number)
    yield trained
    if args.fold_bn:
        sample = augment.pixels(this_round.images.train, View(this_round.labeled[:250]))
        fold(trained, net, sample, getattr(args, "feature_rms", 0.0))


@torch.no_grad()
def fold(trained: SplitNet, net: SequentialNet, sample: Tensor, feature_rms: float) -> SequentialNet:
    """Writes a trained `with_batch_norm(net)` into `net` as the same function (batch norm in eval mode); returns `net`.

    ReLU and pooling commute with a positive factor, so the last convolution can be scaled to bring z to a root mean
    square of `feature_rms` over `sample` (B, 3, S, S), and the first linear layer by the inverse; 0 scales nothing.
    """
    norms = _layers(trained.features, nn.BatchNorm2d)
    convolutions = _layers(trained.features, nn.Conv2d), _layers(net.features, nn.Conv2d)
    for norm, source, target in zip(norms, *convolutions, strict=True):
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        target.weight.copy_(source.weight * scale[:, None, None, None])
        target.bias.copy_(norm.bias - norm.running_mean * scale)
    factor = 1.0
    if feature_rms:
        rms = net.eval().features(sample).square().mean().sqrt()
        factor = feature_rms / rms if rms > 0 else 1.0  # features that are all 0 cannot be scaled
        last = _layers(net.features, nn.Conv2d)[-1]
        last.weight.mul_(factor)
        last.bias.mul_(factor)
        net.train()
    linears = _layers(trained.classifier, nn.Linear), _layers(net.classifier, nn.Linear)
    for number, (source, target) in enumerate(zip(*linears, strict=True)):
        weight = source.weight
        if number == 0:
            if weight.shape != target.weight.shape:  # W pool = w for W = w pinv(pool): the smallest such weights
                matrix = _pool_matrix(net, sample.shape[2])
                inverse = torch.linalg.pinv(matrix.double()).float().to(weight)
                weight = (weight.unflatten(1, (-1, matrix.shape[1])) @ inverse).flatten(1)
            weight = weight / factor
        target.weight.copy_(weight)
        target.bias.copy_(source.bias)
    return net


def _normalized(features: nn.Sequential) -> nn.Sequential:
    """Fresh layers with a batch norm after each convolution, and max pools before the ReLUs they commute with."""
    layers: list[nn.Module] = []
    # weights are drawn in memory order: contiguous, whatever `fast` made of the network
    for layer in copy.deepcopy(features).to("cpu", memory_format=torch.contiguous_format):
        if isinstance(layer, nn.MaxPool2d) and isinstance(layers[-1], nn.ReLU):
            layers.insert(-1, layer)
            continue
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layer.bias = None  # the batch norm's shift takes its place
            layers.append(nn.BatchNorm2d(layer.out_channels))
    return nn.Sequential(*layers)


def _layers(net: nn.Module, kind: type) -> list:
    return [layer for layer in net.children() if isinstance(layer, kind)]


@torch.no_grad()
def _pool_matrix(net: SequentialNet, image_size: int) -> Tensor:
    """The average pool on each channel at this image size, as a matrix (outputs, inputs)."""
    sample = torch.zeros(1, 3, image_size, image_size, device=next(net.parameters()).device)
    return net.pool_matrix(*net.features(sample).shape[2:])
