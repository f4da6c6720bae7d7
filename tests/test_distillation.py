"""The cached teacher reproduces the teacher exactly, and is never another teacher's cache."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import augment, distillation, memory, networks, objective
from common.augment import View
from common.distillation import Targets
from common.errors import InputError
from common.networks import SequentialNet
from common.objective import Forward

from .conftest import parse


def small_teacher(seed: int = 0) -> SequentialNet:
    """z (B, 4, 2, 2), 3x3 after pooling, 10 classes; train mode would change its outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = nn.Sequential(nn.Conv2d(3, 4, 16, stride=32), nn.BatchNorm2d(4), nn.ReLU())
        return SequentialNet(features, 3, [nn.Linear(36, 10)])


def by_hand(teacher: nn.Module, images, mirrored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """z and logits of one view of all images, in one pass."""
    index = torch.arange(len(images.train))
    with torch.no_grad():
        z = teacher.eval().features(augment.pixels(images.train, View(index, torch.full((len(index),), mirrored))))
        return z, teacher.classifier(z)


def both(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...], **tolerance) -> bool:
    return all(torch.allclose(a, b, **tolerance) for a, b in zip(first, second, strict=True))


def outputs_of(targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    return targets.z, targets.logits


# What is computed


def test_outputs_are_the_teachers_for_both_views_whatever_the_batch(random_images):
    teacher = small_teacher()
    z, logits = distillation.compute(teacher.train(), random_images, batch_size=3)
    assert z.shape == (2, 8, 4, 2, 2) and logits.shape == (2, 8, 10) and not teacher.training
    assert z.dtype == logits.dtype == torch.float32 and not z.requires_grad
    for view in (0, 1):
        assert both((z[view], logits[view]), by_hand(teacher, random_images, bool(view)), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(z[0], z[1], atol=0.01)
    assert both(distillation.compute(teacher, random_images), (z, logits), rtol=1e-5, atol=1e-6)
    first = distillation.compute(teacher, random_images, only=2)
    assert both(first, (z[:, :2], logits[:, :2]), rtol=1e-5, atol=1e-6)


def test_images_that_may_not_be_mirrored_have_one_view(random_images):
    random_images.mirror = False
    z, logits = distillation.compute(small_teacher(), random_images)
    assert z.shape[0] == logits.shape[0] == 1
    assert both((z[0], logits[0]), by_hand(small_teacher(), random_images, False), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("spare", "dtype"), [(0, torch.float32), (-1, torch.float16)])
def test_features_that_take_too_much_memory_are_kept_in_half_the_bytes(spare, dtype, random_images, monkeypatch):
    monkeypatch.setattr(distillation, "FLOAT32_LIMIT", 2 * 8 * 16 * 4 + spare)
    z, logits = distillation.compute(small_teacher(), random_images)
    assert z.dtype == dtype and logits.dtype == torch.float32
    assert both((z[1].float(), logits[1]), by_hand(small_teacher(), random_images, True), rtol=1e-3, atol=1e-3)


# What is looked up


def test_what_is_looked_up_is_of_the_image_and_its_view():
    z = torch.arange(6.0).view(2, 3, 1, 1, 1).half()
    targets = Targets(nn.AdaptiveAvgPool2d(2), z, torch.arange(12.0).view(2, 3, 2))
    found = targets.of(View(torch.tensor([2, 0, 1]), torch.tensor([False, True, True])))
    assert found.features.dtype == torch.float32 and found.features.shape == (3, 1, 2, 2)
    assert found.features[:, 0, 1, 1].tolist() == [2, 3, 4]
    assert found.logits.tolist() == [[4, 5], [6, 7], [8, 9]]
    assert targets.of(View(torch.tensor([2, 0]))).logits.tolist() == [[4, 5], [0, 1]]  # no view is mirrored
    assert targets.accuracy == ""


@pytest.mark.slow
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("model", ["AlexNet", "VGG", "ResNet"])
def test_cached_kd_loss_and_gradients_equal_the_two_network_computation(model, random_images, tmp_path, mirrored):
    """Both views, float32: against the teacher run on the same batch, with plain MSE as in the paper."""
    args = parse("KD", "--ce_wt", "0", model=model)
    random_images.train = random_images.train[:, : args.image_size, : args.image_size].contiguous()
    teacher = networks.build(args, "teacher").eval()
    targets = distillation.cache(teacher, random_images, tmp_path)
    index = torch.tensor([3, 0, 7, 5])
    flags = torch.full((4,), mirrored)
    x = augment.pixels(random_images.train, View(index, flags))

    def gradients(loss_of):
        student, decoder = networks.build(args, "student"), networks.build(args, "decoder")
        loss = loss_of(student, decoder, student.features(x))
        loss.backward()
        return loss, [weight.grad for net in (student, decoder) for weight in net.parameters()]

    def cached(student, decoder, z):
        seen = Forward(x, z, teacher=targets.of(View(index, flags)))
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


# What is kept


def test_a_cache_is_made_once_and_read_back(random_images, tmp_path, monkeypatch):
    teacher = small_teacher().train()
    made = distillation.cache(teacher, random_images, tmp_path / "deep" / "folder", accuracy="81.00")
    (path,) = (tmp_path / "deep" / "folder").glob("outputs-*.pt")
    assert path.name == f"outputs-{networks.fingerprint(teacher)[:12]}-{'f' * 12}-2x8.pt"
    assert not teacher.training and made.pool is teacher.classifier.pool and made.accuracy == "81.00"
    assert both((made.z[1], made.logits[1]), by_hand(teacher, random_images, True))
    for name in ("compute", "locked"):  # a read-only folder cannot hold a lock
        monkeypatch.setattr(distillation, name, lambda *_, **__: pytest.fail("made again"))
    read = distillation.cache(teacher.train(), random_images, tmp_path / "deep" / "folder")
    assert torch.equal(made.z, read.z) and torch.equal(made.logits, read.logits)
    assert read.accuracy == "" and not teacher.training
    random_images.device = torch.device("meta")
    moved = distillation.cache(teacher, random_images, tmp_path / "deep" / "folder")
    assert all(tensor.device.type == "meta" for tensor in outputs_of(moved))


def test_outputs_that_do_not_fit_the_memory_are_computed_and_read_on_the_disk(random_images, tmp_path, monkeypatch):
    """What is above half of the memory is mapped: features of 1,024 bytes, and a file that holds them."""
    usual = distillation.cache(small_teacher(), random_images, tmp_path / "usual")
    size = next((tmp_path / "usual").glob("outputs-*.pt")).stat().st_size
    mapped, read = [], distillation.read_tensors
    monkeypatch.setattr(
        distillation, "read_tensors", lambda *words, mmap: mapped.append(mmap) or read(*words, mmap=mmap)
    )
    for available, spilled in ((2047, True), (2048, False)):
        monkeypatch.setattr(memory, "available", lambda available=available: available)
        folder = tmp_path / str(available)
        for _ in ("made", "read"):
            found = distillation.cache(small_teacher(), random_images, folder)
            assert both(outputs_of(found), outputs_of(usual), rtol=0, atol=0)
        assert mapped == [True] * (1 + spilled)  # what was computed in memory is not read back
        mapped.clear()
        assert [path.name for path in folder.iterdir() if "lock" not in path.name] == [
            f"outputs-{networks.fingerprint(small_teacher())[:12]}-{'f' * 12}-2x8.pt"
        ]
    monkeypatch.setattr(memory, "available", lambda: 2 * size)  # the half is enough
    distillation.cache(small_teacher(), random_images, tmp_path / "usual")
    assert mapped == [False]


def test_a_known_fingerprint_stands_for_the_weights(random_images, tmp_path):
    random_images.mirror = False
    distillation.cache(small_teacher(), random_images, tmp_path, "0123456789abcdef")
    assert (tmp_path / f"outputs-0123456789ab-{'f' * 12}-1x8.pt").exists()


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"teacher": "another"}, "teacher"),
        ({"images": "others", "size": 32}, "images, size"),
        ({"count": 7, "views": 1}, "count, views"),
    ],
)
def test_outputs_under_another_key_are_refused(changes, wrong, random_images, tmp_path):
    distillation.cache(small_teacher(), random_images, tmp_path)
    (path,) = tmp_path.glob("outputs-*.pt")
    content = torch.load(path, weights_only=True)
    assert content["key"] == {
        "teacher": networks.fingerprint(small_teacher()),
        "images": "f" * 64,
        "count": 8,
        "size": 64,
        "views": 2,
    }
    torch.save(content | {"key": content["key"] | changes}, path)
    with pytest.raises(InputError, match=rf"^{path}: was made for other {wrong}; delete it and run again$"):
        distillation.cache(small_teacher(), random_images, tmp_path)
    del content["logits"]
    torch.save(content, path)
    with pytest.raises(
        InputError, match=rf"^{path}: is not a cache of teacher outputs \(no 'logits'\); delete it and run"
    ):
        distillation.cache(small_teacher(), random_images, tmp_path)


def test_outputs_of_other_layers_with_the_same_weights_are_refused(random_images, tmp_path):
    distillation.cache(small_teacher(), random_images, tmp_path)
    (path,) = tmp_path.glob("outputs-*.pt")
    teacher = small_teacher()
    teacher.features[2] = nn.Tanh()
    with pytest.raises(InputError, match=f"^{path}: has other outputs than its teacher"):
        distillation.cache(teacher, random_images, tmp_path)


def test_logits_of_another_classifier_with_the_same_weights_are_refused(random_images, tmp_path):
    """The features stay the same."""
    distillation.cache(small_teacher(), random_images, tmp_path)
    teacher = small_teacher()
    teacher.classifier.register_forward_hook(lambda _, inputs, logits: 2 * logits)
    with pytest.raises(InputError, match="has other outputs than its teacher"):
        distillation.cache(teacher, random_images, tmp_path)


def test_features_that_a_layer_was_moved_out_of_are_refused(random_images, tmp_path):
    """The logits stay the same: a ReLU is moved from the end of the features to before the classifier's pool."""
    distillation.cache(small_teacher(), random_images, tmp_path)
    teacher = small_teacher()
    teacher.features[2] = nn.Identity()
    pool = teacher.classifier.pool
    teacher.classifier.pool = nn.Sequential(nn.ReLU(), pool)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(teacher.eval()(x), small_teacher().eval()(x))
    with pytest.raises(InputError, match="has other outputs than its teacher"):
        distillation.cache(teacher, random_images, tmp_path)


def test_another_teacher_has_another_cache(random_images, tmp_path):
    first, second = (distillation.cache(small_teacher(seed), random_images, tmp_path) for seed in (0, 1))
    assert len(list(tmp_path.glob("outputs-*.pt"))) == 2 and not both(outputs_of(first), outputs_of(second))


def test_a_damaged_cache_is_made_again_with_a_line_about_it(random_images, tmp_path, capsys):
    teacher = small_teacher()
    made = distillation.cache(teacher, random_images, tmp_path)
    (path,) = tmp_path.glob("outputs-*.pt")
    whole = path.read_bytes()
    for damaged in (whole[:1000], whole[:1500] + bytes([whole[1500] ^ 4]) + whole[1501:]):
        path.write_bytes(damaged)
        again = distillation.cache(teacher, random_images, tmp_path)
        assert torch.equal(made.z, again.z) and torch.equal(made.logits, again.logits)
        assert path.read_bytes() == whole
        out, err = capsys.readouterr()
        assert f"{path}: damaged" in err and "; making it again\n" in err and not out


def test_a_folder_that_cannot_be_written_is_refused(random_images, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    message = rf"^--save_path {tmp_path / 'file'}: the teacher's outputs cannot be written \(File exists\)$"
    with pytest.raises(InputError, match=message):
        distillation.cache(small_teacher(), random_images, tmp_path / "file")


def test_two_processes_that_want_the_same_outputs_compute_them_once(random_images, tmp_path, monkeypatch):
    """The second one finds the file once it gets the lock: here the first writes it while the second waits."""
    teacher = small_teacher()
    computed, compute, locked, locks = [], distillation.compute, distillation.locked, []
    monkeypatch.setattr(distillation, "compute", lambda *words, **more: computed.append(1) or compute(*words, **more))

    def waited(path, purpose):
        locks.append((path, purpose))
        monkeypatch.setattr(distillation, "locked", locked)
        distillation.cache(teacher, random_images, tmp_path)
        return locked(path, purpose)

    monkeypatch.setattr(distillation, "locked", waited)
    found = distillation.cache(teacher, random_images, tmp_path)
    assert computed == [1] and both((found.z[0], found.logits[0]), by_hand(teacher, random_images, False))
    (path,) = tmp_path.glob("outputs-*.pt")
    assert locks == [(tmp_path / f".{path.stem}.lock", "another process that computes the teacher's outputs")]


def test_features_that_half_precision_cannot_hold_are_refused(random_images, tmp_path, monkeypatch):
    """Such as an unfolded batch norm's features, if the cache is large; the logits are finite."""
    monkeypatch.setattr(distillation, "kept_as", lambda floats: torch.float16)
    teacher = small_teacher()
    with torch.no_grad():
        teacher.features[0].weight.mul_(1e6)
        teacher.classifier[-1].weight.mul_(1e-6)
    with pytest.raises(InputError, match="its outputs for some images are not finite"):
        distillation.cache(teacher, random_images, tmp_path)
