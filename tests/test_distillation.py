"""The cached teacher stands for the teacher exactly, and the losses are their formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from common import augment, distillation, networks
from common.errors import InputError

from .conftest import parse


@pytest.fixture(scope="module")
def args():
    return parse("KD")


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("model", ["AlexNet", "VGG", "ResNet"])
def test_cached_kd_loss_and_gradients_equal_the_two_network_computation(model, random_images, tmp_path, mirrored):
    """Both views, float32: against the teacher run on the very batch, with plain MSE as the paper writes it."""
    args = parse("KD", model=model)
    random_images.train = random_images.train[:, : args.image_size, : args.image_size].contiguous()
    teacher = networks.build(args, "teacher").eval()
    targets = distillation.cache(teacher, random_images, tmp_path)
    index = torch.tensor([3, 0, 7, 5])
    flags = torch.full((4,), mirrored)
    x = augment.batch(random_images.train, index, flags)

    def gradients(loss_of):
        student, decoder = networks.build(args, "student"), networks.build(args, "decoder")
        z = student.embed(x)
        loss = loss_of(decoder, student.spread(z), student.classify(z))
        loss.backward()
        return loss, [weight.grad for net in (student, decoder) for weight in net.parameters()]

    def cached(decoder, z, logits):
        return sum(distillation.loss(args, decoder, targets, z, logits, index, flags))

    def plain(decoder, z, logits):
        with torch.no_grad():
            features, scores = teacher.avgpool(teacher.maps(x)), teacher(x)
        return args.feat_wt * F.mse_loss(decoder(z), features) + args.logit_wt * F.mse_loss(logits, scores)

    (loss, ours), (expected, theirs) = gradients(cached), gradients(plain)
    assert torch.allclose(loss, expected, rtol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_cache_is_read_back_and_a_wrong_key_is_an_error(args, random_images, tmp_path):
    teacher = networks.build(args, "teacher")
    made = distillation.cache(teacher, random_images, tmp_path)
    (path,) = tmp_path.glob("outputs-*.pt")
    read = distillation.cache(teacher, random_images, tmp_path)
    assert torch.equal(made.maps, read.maps) and torch.equal(made.logits, read.logits)
    assert made.maps.shape == (2, 8, 256, 1, 1)  # the map before it is spread to 6x6

    content = torch.load(path, weights_only=True)
    torch.save(content | {"key": content["key"] | {"teacher": "another"}}, path)
    with pytest.raises(InputError, match="was made for other teacher"):
        distillation.cache(teacher, random_images, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable cache"):
        distillation.cache(teacher, random_images, tmp_path)


@pytest.mark.parametrize(("limit", "dtype"), [(8 * 512 * 4 * 2 * 4, torch.float32), (1000, torch.float16)])
def test_a_large_cache_keeps_the_maps_before_they_are_spread_in_half_the_bytes(
    limit, dtype, random_images, tmp_path, monkeypatch
):
    monkeypatch.setattr(distillation, "FLOAT32_LIMIT", limit)
    teacher = networks.build(parse("KD", model="VGG"), "teacher").eval().requires_grad_(False)
    targets = distillation.cache(teacher, random_images, tmp_path)
    assert targets.maps.shape == (2, 8, 512, 2, 2) and targets.maps.dtype == dtype
    index = torch.arange(8)
    features = targets.features(index, torch.zeros(8, dtype=torch.bool))
    expected = teacher.embed(augment.batch(random_images.train, index))
    assert features.shape == (8, 512, 7, 7) and features.dtype == torch.float32
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_another_teacher_has_another_cache(args, random_images, tmp_path):
    teacher = networks.build(args, "teacher")
    distillation.cache(teacher, random_images, tmp_path)
    with torch.no_grad():
        teacher.classifier[6].bias[0] += 1
    distillation.cache(teacher, random_images, tmp_path)
    assert len(list(tmp_path.glob("outputs-*.pt"))) == 2


def test_kl_is_hintons():
    """Two classes, temperature 2, by hand: p = softmax(teacher / 2), q = softmax(student / 2)."""
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert distillation.logit_loss(student, teacher, "kl", 2.0).item() == pytest.approx(expected, rel=1e-5)
    assert distillation.logit_loss(student, teacher, "mse", 2.0).item() == pytest.approx(2 * math.log(3) ** 2, rel=1e-5)
