"""`--fast auto` leaves the network unchanged: values, gradients, names, parameters. `off` is plain torch.nn."""

import copy
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from common import fast, networks
from common.fast import layers, winograd

from .conftest import MODELS, ROOT, parse

Z = {"AlexNet": (32, 3, 3), "VGG": (64, 8, 8), "ResNet": (64, 4, 4)}  # what a decoder takes
SMALL = [(model, part) for model in MODELS for part in ("student", "decoder")]
TEACHERS = [(model, "teacher") for model in MODELS]


def plain(model: str, part: str) -> nn.Module:
    """A pair's network of plain torch.nn, its hidden linear layers thinned, in float64 with weights as after training.

    The layers of 4096 are thinned to 64: they would take seconds and gigabytes, and `fast` looks at the pool before.
    """
    with torch.device("meta"):
        net = unmade(model, part)
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                for side in ("in_features", "out_features"):
                    setattr(layer, side, 64 if getattr(layer, side) == 4096 else getattr(layer, side))
                layer.weight = nn.Parameter(torch.empty(layer.out_features, layer.in_features))
                layer.bias = nn.Parameter(torch.empty(layer.out_features))
    net.double().to_empty(device="cpu")
    torch.manual_seed(0)
    for layer in net.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                nn.init.normal_(tensor, std=0.2)
    return net


def unmade(model: str, part: str) -> nn.Module:
    """A pair's network as its module builds it."""
    make = getattr(networks.PAIRS[model], part)
    return make() if part == "decoder" else make(10)


def inputs(model: str, part: str, count: int) -> torch.Tensor:
    size = networks.PAIRS[model].IMAGE_SIZE
    shape = Z[model] if part == "decoder" else (3, size, size)
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


def outcome(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The results of a forward and a backward pass: outputs, every gradient, every buffer."""
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # for dropout
    y = net(x)
    weights = torch.rand(y.shape[1:], dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad((weights * y.square()).mean(), [x, *net.parameters()])
    names = ["input", *(name for name, _ in net.named_parameters())]
    return {"output": y.detach()} | dict(zip(names, gradients, strict=True)) | dict(net.named_buffers())


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-9) -> None:
    """Are all tensors equal, up to a fraction of each one's largest value?"""
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
        assert (ours[name] - tensor).abs().max() <= tolerance * tensor.abs().max(), name


@pytest.mark.parametrize("count", [40, 4])
@pytest.mark.parametrize(("model", "part"), SMALL)
def test_students_and_decoders_keep_their_function(model, part, count):
    """40 images use the short convolution, 4 the plain one. A decoder has one mode."""
    net = plain(model, part)
    quick = fast.apply(copy.deepcopy(net), "auto")
    x = inputs(model, part, count)
    for training in (True, False) if part == "student" else (True,):
        same(outcome(quick.train(training), x), outcome(net.train(training), x))


@pytest.mark.parametrize(("model", "part"), TEACHERS)
def test_teachers_keep_their_function(model, part):
    """4 images in both modes; then 32 in eval mode, each image eight times, for the short convolution.

    The plain network would be slow on 32 and need not see the copies: outputs are those of the four, as is every
    gradient of a mean over the batch; an image's own gradient is divided among its copies.
    """
    net = plain(model, part)
    quick = fast.apply(copy.deepcopy(net), "auto")
    x = inputs(model, part, 4)
    for training in (True, False):
        expected = outcome(net.train(training), x)
        same(outcome(quick.train(training), x), expected)
    many = outcome(quick, x.repeat(8, 1, 1, 1))
    assert torch.allclose(many["output"], expected["output"].repeat(8, 1), rtol=1e-9, atol=1e-12)
    many["output"] = expected["output"]
    many["input"] = many["input"].view(8, *x.shape).sum(0)
    same(many, expected)


@pytest.mark.parametrize(("model", "part"), SMALL + TEACHERS)
def test_names_stay_and_so_do_the_parameters(model, part):
    with torch.device("meta"):
        net = unmade(model, part)
    kinds = {type(layer) for layer in net.modules()}
    names, parameters, buffers = list(net.state_dict()), dict(net.named_parameters()), dict(net.named_buffers())
    quick = fast.apply(net, "auto")
    assert list(quick.state_dict()) == names
    after = dict(quick.named_parameters())
    assert list(after) == list(parameters) and all(after[name] is parameters[name] for name in after)
    after = dict(quick.named_buffers())
    assert list(after) == list(buffers) and all(after[name] is buffers[name] for name in after)
    assert {type(layer) for layer in quick.modules()} != kinds  # something is quicker


@pytest.mark.parametrize(("model", "part"), SMALL + TEACHERS)
def test_off_leaves_plain_torch_nn(model, part):
    with torch.device("meta"):
        net = unmade(model, part)
    before = list(net.modules())
    assert fast.apply(net, "off") is net
    assert all(a is b for a, b in zip(net.modules(), before, strict=True))
    homes = {type(layer).__module__ for layer in before}
    assert all(home.startswith(("torch.nn.", "torchvision.", "common.networks.")) for home in homes)


def test_the_flag_reaches_what_a_run_builds_and_the_process(monkeypatch):
    asked = []
    monkeypatch.setattr(fast, "keep_freed_memory", lambda: asked.append("memory"))
    weights = []
    for choice in ("off", "auto"):
        args = parse("KD", "--fast", choice)
        assert asked == ([] if choice == "off" else ["memory"])
        for part in ("student", "decoder"):
            net = networks.build(args, part)
            homes = {type(layer).__module__.rpartition(".")[0] for layer in net.modules()}
            assert ("common.fast" in homes) == (choice == "auto")
            weights.append(networks.fingerprint(net))  # a cache of one network's outputs is the other's
    assert weights[:2] == weights[2:]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_kept_memory_is_given_back_when_it_is_asked_for():
    """In its own process, because it configures the allocator."""
    code = """if True:
        import resource, torch
        from common import fast
        pages = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
        fast.keep_freed_memory()
        some, top = torch.ones(2**24), torch.ones(2**20)  # 64 MB below what is still in use
        before = pages()
        del some
        kept = pages()
        fast.release_freed_memory()
        print(before - kept, kept - pages())
    """
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    kept, released = map(float, done.stdout.split())
    assert abs(kept) < 8 and released > 56


def test_a_replaced_layer_is_left_as_it_was():
    old = [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2)]
    quick = fast.apply(nn.Sequential(*old))
    assert [type(layer) for layer in quick] == [
        winograd.Conv3x3,
        layers.BatchNorm,
        layers.MaxPool,
        layers.AveragePool,
    ]
    assert [type(layer) for layer in old] == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d]
    again = list(quick)
    assert all(a is b for a, b in zip(fast.apply(quick), again, strict=True))  # nothing is left to replace


@pytest.mark.parametrize("training", [True, False])
def test_a_network_keeps_its_mode(training):
    net = plain("ResNet", "student").train(training)
    quick = fast.apply(copy.deepcopy(net))
    x = inputs("ResNet", "student", 2)
    same(outcome(quick, x), outcome(net, x))


CONVOLUTIONS = [
    {"padding": 1},
    {"padding": 1, "bias": False},
    {"padding": 1, "stride": 2},
    {"padding": 0},
    {"padding": 1, "groups": 4},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 2, "dilation": 2},
    {"padding": "same"},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_only_plain_3x3_convolutions_are_replaced(options):
    net = nn.Sequential(nn.Conv2d(48, 48, 3, **options)).double()
    quick = fast.apply(copy.deepcopy(net))
    assert (type(quick[0]) is winograd.Conv3x3) == (options in CONVOLUTIONS[:2])
    x = torch.randn(32, 48, 6, 6, dtype=torch.float64)
    same(outcome(quick, x), outcome(net, x))


@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"eps": 0.3, "momentum": 0.4}],
)
def test_batch_norm_keeps_its_options_and_its_statistics(options):
    net = nn.BatchNorm2d(5, **options).double()
    if net.affine:
        nn.init.normal_(net.weight), nn.init.normal_(net.bias)
    quick = fast.apply(copy.deepcopy(net))
    for training in (True, True, False):
        x = 3 + torch.randn(4, 5, 3, 2, dtype=torch.float64)
        same(outcome(quick.train(training), x), outcome(net.train(training), x), 1e-12)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((3, 2), (1, 2), padding=(1, 0)),
        nn.MaxPool2d(2, 1, dilation=2),
    ],
)
def test_max_pooling_keeps_its_options_and_the_gradient_of_equal_values(pool):
    x = torch.randint(0, 3, (2, 3, 7, 8), generator=torch.Generator().manual_seed(0)).double()  # many are equal
    quick = fast.apply(nn.Sequential(copy.deepcopy(pool)))
    assert type(quick[0]) is layers.MaxPool
    same(outcome(quick, x), outcome(pool, x), 0)


def test_a_max_pool_that_returns_indices_stays():
    pool = nn.MaxPool2d(2, return_indices=True)
    assert fast.apply(pool) is pool


POOLS = [
    ((1, 1), 6),  # AlexNet's teacher
    ((2, 2), 7),  # VGG's
    ((3, 3), 6),  # AlexNet's student
    ((8, 8), 7),  # VGG's
    ((8, 8), 4),
    ((4, 4), 4),
    ((5, 5), 3),
    ((1, 1), 1),
    ((3, 5), (6, 2)),
]


@pytest.mark.parametrize(("maps", "size"), POOLS)
def test_average_pooling_and_its_gradient(maps, size):
    x = torch.randn(2, 3, *maps, dtype=torch.float64)
    for order in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=order)
        same(outcome(layers.AveragePool(size), x), outcome(nn.AdaptiveAvgPool2d(size), x), 1e-12)


def test_autocast_does_not_round_what_is_pooled():
    """The teacher's features are float32 and must stay so."""
    z = torch.randn(2, 3, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = layers.AveragePool(7)(z)
    assert pooled.dtype == torch.float32 and torch.equal(pooled, layers.AveragePool(7)(z))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("maps", "size"), POOLS)
def test_a_classifier_with_summed_weights(maps, size, bias):
    rows, columns = (size, size) if isinstance(size, int) else size
    layer = nn.Linear(3 * rows * columns, 5, bias=bias)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Flatten(), layer, nn.ReLU(), nn.Dropout(), nn.Linear(5, 2))
    quick = fast.apply(copy.deepcopy(net.double()))
    assert type(quick) is layers.SummedClassifier
    z = torch.randn(4, 3, *maps, dtype=torch.float64)
    for order in (torch.contiguous_format, torch.channels_last):
        z = z.contiguous(memory_format=order)
        for training in (True, False):
            same(outcome(quick.train(training), z), outcome(net.train(training), z), 1e-12)


def test_only_a_classifier_that_begins_with_its_pool_is_summed():
    """With dropout between them, as in AlexNet, copies of a value are dropped separately: nothing can be summed."""
    for between in (nn.Dropout(), nn.ReLU()):
        net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), between, nn.Linear(12, 2)).double()
        quick = fast.apply(copy.deepcopy(net))
        z = torch.randn(4, 3, 1, 1, dtype=torch.float64)
        same(outcome(quick, z), outcome(net, z), 1e-12)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.BatchNorm2d(64)])
def test_what_follows_a_short_convolution_is_in_channels_last_memory(pool):
    """In another memory order these two are several times slower: it once halved ResNet-18's speed."""
    net = fast.apply(nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), pool))
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    maps = net[0](torch.randn(32, 32, 8, 8))
    assert not maps.is_contiguous(memory_format=torch.channels_last)
    assert net[1](maps).is_contiguous(memory_format=torch.channels_last)


def test_the_mean_squared_errors_gradient_keeps_the_memory_order_of_its_input():
    """torch's is contiguous: for a decoder's output that costs more than the loss itself."""
    teacher = torch.randn(5, 4, 1, 1).expand(-1, -1, 3, 3)
    ours, plain = (torch.randn(3, 3, 5, 4, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    losses = []
    for tensor, choice in ((ours, "auto"), (plain, "off")):
        tensor.requires_grad_()
        seen = []
        student = tensor.permute(2, 3, 0, 1)
        student.register_hook(lambda gradient, seen=seen: seen.append(gradient))
        losses.append(fast.mse_loss(student, teacher, choice))
        losses[-1].backward()
        assert (seen[0].stride() == student.stride()) == (choice == "auto")
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    assert torch.allclose(ours.grad, plain.grad, rtol=1e-6)
