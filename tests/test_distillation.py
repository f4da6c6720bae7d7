"""The cached teacher stands for the teacher exactly, and is never another one's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import augment, distillation, networks, objective
from common.augment import View
from common.errors import InputError
from common.objective import Seen

from .conftest import parse


@pytest.fixture(scope="module")
def args():
    return parse("KD")


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("model", ["AlexNet", "VGG", "ResNet"])
def test_cached_kd_loss_and_gradients_equal_the_two_network_computation(model, random_images, tmp_path, mirrored):
    """Both views, float32: against the teacher run on the very batch, with plain MSE as the paper writes it."""
    args = parse("KD", "--ce_wt", "0", model=model)
    random_images.train = random_images.train[:, : args.image_size, : args.image_size].contiguous()
    teacher = networks.build(args, "teacher").eval()
    targets = distillation.cache(teacher, random_images, tmp_path)
    index = torch.tensor([3, 0, 7, 5])
    flags = torch.full((4,), mirrored)
    x = augment.see(random_images.train, View(index, flags))

    def gradients(loss_of):
        student, decoder = networks.build(args, "student"), networks.build(args, "decoder")
        loss = loss_of(student, decoder, student.features(x))
        loss.backward()
        return loss, [weight.grad for net in (student, decoder) for weight in net.parameters()]

    def cached(student, decoder, z):
        seen = Seen(x, z, teacher=targets.of(View(index, flags)))
        return sum(objective.task_loss(args, student, decoder, None, seen, seen, None).values())

    def plain(student, decoder, z):
        with torch.no_grad():
            features, scores = plain_pool(teacher.features(x)), teacher(x)
        feature, logit = F.mse_loss(decoder(z), features), F.mse_loss(student.classifier(z), scores)
        return args.feat_wt * feature + args.logit_wt * logit

    plain_pool = {"AlexNet": nn.AdaptiveAvgPool2d(6), "VGG": nn.AdaptiveAvgPool2d(7), "ResNet": nn.Identity()}[model]

    (loss, ours), (expected, theirs) = gradients(cached), gradients(plain)
    assert torch.allclose(loss, expected, rtol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_cache_is_read_back_and_a_wrong_key_is_an_error(args, random_images, tmp_path):
    teacher = networks.build(args, "teacher")
    made = distillation.cache(teacher, random_images, tmp_path)
    (path,) = tmp_path.glob("outputs-*.pt")
    read = distillation.cache(teacher, random_images, tmp_path)
    assert torch.equal(made.z, read.z) and torch.equal(made.logits, read.logits)
    assert made.z.shape == (2, 8, 256, 1, 1)  # the map before it is spread to 6x6

    content = torch.load(path, weights_only=True)
    torch.save(content | {"key": content["key"] | {"teacher": "another"}}, path)
    with pytest.raises(InputError, match="was made for other teacher"):
        distillation.cache(teacher, random_images, tmp_path)


@pytest.mark.parametrize(("limit", "dtype"), [(8 * 512 * 4 * 2 * 4, torch.float32), (1000, torch.float16)])
def test_a_large_cache_keeps_the_maps_before_they_are_spread_in_half_the_bytes(
    limit, dtype, random_images, tmp_path, monkeypatch
):
    monkeypatch.setattr(distillation, "FLOAT32_LIMIT", limit)
    teacher = networks.build(parse("KD", model="VGG"), "teacher").eval().requires_grad_(False)
    targets = distillation.cache(teacher, random_images, tmp_path)
    assert targets.z.shape == (2, 8, 512, 2, 2) and targets.z.dtype == dtype
    index = torch.arange(8)
    features = targets.of(View(index, torch.zeros(8, dtype=torch.bool))).features
    expected = nn.AdaptiveAvgPool2d(7)(teacher.features(augment.see(random_images.train, View(index))))
    assert features.shape == (8, 512, 7, 7) and features.dtype == torch.float32
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_another_teacher_has_another_cache(args, random_images, tmp_path):
    teacher = networks.build(args, "teacher")
    distillation.cache(teacher, random_images, tmp_path)
    with torch.no_grad():
        teacher.classifier[6].bias[0] += 1
    distillation.cache(teacher, random_images, tmp_path)
    assert len(list(tmp_path.glob("outputs-*.pt"))) == 2


def test_a_damaged_cache_is_made_again_with_a_line_about_it(args, random_images, tmp_path, capsys):
    teacher = networks.build(args, "teacher")
    made = distillation.cache(teacher, random_images, tmp_path)
    (path,) = tmp_path.glob("outputs-*.pt")
    whole = path.read_bytes()
    for damaged in (whole[:1000], whole[:3000] + bytes([whole[3000] ^ 4]) + whole[3001:]):
        path.write_bytes(damaged)
        again = distillation.cache(teacher, random_images, tmp_path)
        assert torch.equal(made.z, again.z) and torch.equal(made.logits, again.logits)
        assert path.read_bytes() == whole
        assert f"{path.name}: damaged" in capsys.readouterr().err


def test_two_processes_that_want_the_same_outputs_compute_them_once(args, random_images, tmp_path, monkeypatch):
    """The second one finds the file when it gets the lock: here the first writes it while the second waits."""
    teacher = networks.build(args, "teacher")
    computed, compute, locked = [], distillation.compute, distillation.locked
    monkeypatch.setattr(distillation, "compute", lambda *words: computed.append(1) or compute(*words))

    def waited(path, purpose):
        monkeypatch.setattr(distillation, "locked", locked)
        distillation.cache(teacher, random_images, tmp_path)
        return locked(path, purpose)

    monkeypatch.setattr(distillation, "locked", waited)
    distillation.cache(teacher, random_images, tmp_path)
    assert computed == [1]
