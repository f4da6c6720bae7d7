"""What a student sees with --views, --mixup and --cutout, what it learns from, and which weights are kept."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import augment, distillation, evaluation, objective
from common.augment import View, Views
from common.losses import kl
from common.objective import Outputs
from common.teachers import Teacher

from . import toys
from .conftest import parse
from .test_distillation import small_teacher
from .toys import Quiet, toy_session

FAIR = "--distill_on pool --ce_wt 0 --feat_wt 0 --logit_loss kl --logit_wt 1 --keep last".split()  # noqa: SIM905


def viewed(*words, views=3):
    """A toy session of KD on the pool with fixed views whose teacher logits are (image, view)."""
    s = toy_session("KD", *FAIR, "--views", str(views), "--shift", "1", *words)
    s.targets = toys.targets(views)
    s.targets.views = distillation.fixed_views(s.args, s.images)
    return s


# Views


def test_drawn_views_are_the_image_itself_and_moved_and_mirrored_ones():
    views = augment.draw(40, 30, True, 2, torch.Generator().manual_seed(0))
    assert not views.mirrored[0].any() and not views.offsets[0].any()
    assert {tuple(pair) for pair in views.offsets[1:].flatten(0, 1).tolist()} == set(
        itertools.product(range(-2, 3), repeat=2)
    )
    assert 500 < views.mirrored[1:].sum() < 670  # 1170 fair coins: five standard deviations
    assert len({tuple(row) for row in views.mirrored[1:].T.tolist()}) == 30  # each image has its own views
    assert not augment.draw(5, 30, False, 2, torch.Generator().manual_seed(0)).mirrored.any()


def test_the_papers_views_are_the_image_and_where_it_may_be_its_mirror():
    assert augment.both(3, True).mirrored.tolist() == [[False] * 3, [True] * 3]
    assert augment.both(3, False).mirrored.tolist() == [[False] * 3] and augment.both(3, True).offsets is None


def test_a_view_of_an_image_is_looked_up_by_its_number():
    views = Views(
        torch.tensor([[False, False], [True, False]]), torch.tensor([[[0, 0]] * 2, [[1, -1], [2, 0]]]).to(torch.int8)
    )
    view = views.of(torch.tensor([1, 0, 0]), torch.tensor([1, 1, 0]))
    assert view.mirrored.tolist() == [False, True, False] and view.offsets.tolist() == [[2, 0], [1, -1], [0, 0]]
    assert view.offsets.dtype == torch.int64 and view.which.tolist() == [1, 1, 0]


def test_views_depend_on_the_seed_their_number_and_shift_alone(images):
    drawn = [
        distillation.fixed_views(parse("KD", *words), images)
        for words in (["--views", "4", "--shift", "3"], ["--views", "4", "--shift", "3", "--lr_task", "1"],
                      ["--views", "4", "--shift", "3", "--seed", "6"])
    ]  # fmt: skip
    assert torch.equal(drawn[0].offsets, drawn[1].offsets) and not torch.equal(drawn[0].offsets, drawn[2].offsets)
    assert drawn[0].offsets.shape == (4, 200, 2) and drawn[0].offsets.abs().max() == 3
    assert distillation.fixed_views(parse("KD"), images) is None


@pytest.mark.parametrize("features", [True, False])
def test_outputs_are_the_teachers_for_each_view_as_the_student_sees_it(features, random_images, tmp_path, monkeypatch):
    views = augment.draw(3, 8, True, 9, torch.Generator().manual_seed(1))
    teacher = small_teacher()
    targets = distillation.cache(teacher, random_images, tmp_path, views=views, features=features)
    assert targets.z.shape[0] == (3 if features else 1) and targets.logits.shape == (3, 8, 10)
    index, which = torch.tensor([5, 0, 7, 5]), torch.tensor([2, 0, 1, 1])
    view = views.of(index, which)
    with torch.no_grad():
        z = teacher.eval().features(augment.pixels(random_images.train, view))
        found = targets.of(view, features)
        assert torch.allclose(found.logits, teacher.classifier(z), rtol=1e-4, atol=1e-5)
    if features:
        assert torch.allclose(found.features, teacher.pool(z), rtol=1e-4, atol=1e-5)
    else:
        assert found.features is None
    monkeypatch.setattr(distillation, "compute", lambda *_, **__: pytest.fail("made again"))
    again = distillation.cache(teacher, random_images, tmp_path, views=views, features=features)
    assert torch.equal(again.logits, targets.logits) and torch.equal(again.z, targets.z)


def test_outputs_for_other_views_or_without_features_are_other_files(random_images, tmp_path):
    teacher = small_teacher()
    first, second = (augment.draw(2, 8, True, 9, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    for views, features in [(None, True), (None, False), (first, True), (first, False), (second, True)]:
        distillation.cache(teacher, random_images, tmp_path, views=views, features=features)
    assert len(list(tmp_path.glob("outputs-*.pt"))) == 5


def test_views_that_are_moved_otherwise_have_another_cache(random_images, tmp_path):
    teacher, mirrored = small_teacher(), torch.zeros(2, 8, dtype=torch.bool)
    for moved in (0, 5):
        offsets = torch.full((2, 8, 2), moved, dtype=torch.int8)
        targets = distillation.cache(teacher, random_images, tmp_path, views=Views(mirrored, offsets))
        expected, _ = distillation.compute(teacher, random_images, views=Views(mirrored, offsets))
        assert torch.equal(targets.z, expected)
    assert len(list(tmp_path.glob("outputs-*.pt"))) == 2


def test_the_student_sees_the_fixed_views_alone_each_with_its_teachers_outputs():
    s = viewed()
    for batch in s.batches():
        _, distilled, _ = s.forward(batch, adversarial=False)
        view = s.targets.views.of(batch.pool.index, batch.pool.which)
        assert torch.equal(distilled.x, augment.pixels(s.images.train, view))
        assert distilled.teacher.logits.tolist() == torch.stack([view.index, view.which], 1).float().tolist()
    numbers = []
    for s.epoch in range(40):
        numbers += [batch.pool.which for batch in s.batches()]
    numbers = torch.cat(numbers)
    assert all(80 < count < 135 for count in numbers.bincount(minlength=3))  # 320 draws


def test_mean_targets_are_of_the_image_in_whatever_view_is_drawn():
    s = viewed("--targets", "mean")
    s.targets = s.targets.averaged()
    seen = set()
    for s.epoch in range(30):
        for batch in s.batches():
            _, distilled, _ = s.forward(batch, adversarial=False)
            assert torch.equal(distilled.x, augment.pixels(s.images.train, batch.pool))
            assert distilled.teacher.logits.tolist() == [[float(i), 1.0] for i in batch.pool.index]  # views 0, 1, 2
            seen |= set(zip(*(part.tolist() for part in (batch.pool.mirrored, *batch.pool.offsets.T)), strict=True))
    assert len(seen) == 2 * 3 * 3  # mirrored or not, moved by up to one pixel each way: all of them


def test_the_mean_is_over_the_views_that_the_flags_say(images, tmp_path):
    words = ["--save_path", str(tmp_path), "--feat_wt", "0", "--views", "3", "--shift", "2"]
    found = {}
    for kind in ("view", "mean"):
        args = parse("KD", *words, "--targets", kind)
        found[kind] = Teacher(args, Quiet(), images)._cache(small_teacher(), "key", "50", torch.arange(9))
    assert len(found["view"].views.mirrored) == 3 and found["mean"].views is None
    assert torch.allclose(found["mean"].logits, found["view"].logits.sum(0, keepdim=True) / 3)
    assert len(found["mean"].seen) == 9 and found["mean"].accuracy == "50"


def test_without_cross_entropy_the_labelled_batch_costs_nothing():
    s, looked = viewed(), []
    features = s.net.features
    s.net.features = lambda x: looked.append(len(x)) or features(x)
    losses = s.step(next(s.batches()))
    assert set(losses) == {"loss", "logit"} and looked == [2]
    s.args.ce_wt = 1.0
    assert set(s.step(next(s.batches()))) == {"loss", "ce", "logit"} and looked == [2, 2, 2]


# mixup


def test_mixup_blends_each_image_with_the_next_and_their_softened_outputs():
    x = torch.randn(3, 3, 2, 2)
    teacher = Outputs(torch.randn(3, 4, 1, 1), 5 * torch.randn(3, 6))
    share = torch.tensor([1.0, 0.25, 0.5])
    mixed, outputs = objective.mixed(x, teacher, share, 4.0)
    assert torch.equal(mixed[0], x[0]) and torch.allclose(mixed[1], 0.25 * x[1] + 0.75 * x[2])
    assert torch.allclose(mixed[2], 0.5 * x[2] + 0.5 * x[0])
    assert torch.allclose(outputs.features[1], 0.25 * teacher.features[1] + 0.75 * teacher.features[2])
    soft = (teacher.logits / 4).softmax(1)
    assert torch.allclose((outputs.logits / 4).softmax(1)[2], 0.5 * soft[2] + 0.5 * soft[0], atol=1e-6)
    args, student = parse("KD", "--temperature", "4"), torch.randn(3, 6)
    target = share[:, None] * soft + (1 - share[:, None]) * soft.roll(-1, 0)
    by_hand = F.kl_div((student / 4).log_softmax(1), target, reduction="batchmean") * 16
    assert torch.allclose(kl(student, outputs.logits, args), by_hand, rtol=1e-4)


def test_mixup_keeps_what_the_teacher_says_of_unlikely_classes():
    logits = torch.tensor([[0.0, -20.0], [3.0, -9.0]])
    outputs = objective.mixed(torch.zeros(2, 3, 2, 2), Outputs(None, logits), torch.ones(2), 1.0)[1]
    assert torch.allclose(outputs.logits, logits.log_softmax(1), rtol=1e-5)


def test_shares_of_mixup_are_drawn_for_each_image_round_and_epoch():
    s = viewed("--mixup", "0.5")
    first = torch.cat([batch.mix for batch in s.batches()])
    assert first.shape == (8,) and ((first >= 0) & (first <= 1)).all() and len(set(first.tolist())) == 8
    assert torch.equal(first, torch.cat([batch.mix for batch in s.batches()]))
    s.round.number = 1
    assert not torch.equal(first, torch.cat([batch.mix for batch in s.batches()]))
    s.round.number, s.epoch = 0, 1
    assert not torch.equal(first, torch.cat([batch.mix for batch in s.batches()]))
    assert next(viewed().batches()).mix is None
    batch = next(s.batches())
    _, distilled, _ = s.forward(batch, adversarial=False)
    plain = augment.pixels(s.images.train, batch.pool)
    assert torch.allclose(distilled.x[0], batch.mix[0] * plain[0] + (1 - batch.mix[0]) * plain[1], atol=1e-6)


def test_mixup_blends_probabilities_at_the_losss_temperature():
    s = viewed("--mixup", "0.5", "--temperature", "3")
    batch = next(s.batches())
    _, distilled, _ = s.forward(batch, adversarial=False)
    logits = s.targets.of(batch.pool).logits
    soft, share = (logits / 3).softmax(1), batch.mix[:, None]
    assert torch.allclose((distilled.teacher.logits / 3).softmax(1), share * soft + (1 - share) * soft.roll(-1, 0))


# cutout


def test_a_box_is_gray_inside_and_the_image_outside():
    images = torch.full((2, 6, 6, 3), 255, dtype=torch.uint8)
    view = View(torch.tensor([0, 1]), boxes=torch.tensor([[1, 3, 2, 5], [-2, 1, 4, 9]]))
    seen = augment.pixels(images, view)
    expected = torch.ones(2, 3, 6, 6)
    expected[0, :, 1:3, 2:5] = 0
    expected[1, :, :1, 4:] = 0
    assert torch.equal(seen, expected)


def test_boxes_lie_about_pixels_of_the_image():
    boxes = augment.cut(500, 6, 4, torch.Generator().manual_seed(0))
    assert ((boxes[:, 1] - boxes[:, 0]) == 4).all() and ((boxes[:, 3] - boxes[:, 2]) == 4).all()
    assert set((boxes[:, 0] + 2).tolist()) == set((boxes[:, 2] + 2).tolist()) == set(range(6))


def test_cutout_blanks_training_images_and_none_else():
    s = toy_session("Random", "--cutout", "3")
    batch = next(s.batches())
    assert batch.labeled.boxes.shape == (2, 4)
    assert (s.forward(batch, adversarial=False)[0].x == 0).any(dim=(1, 2, 3)).all()
    assert next(toy_session("Random").batches()).labeled.boxes is None


# What is kept


def trained(keep, *words, run=None):
    s = toy_session("Random", "--keep", keep, "--train_epochs", "3", "--lr_task", "0.05", *words, run=run or Quiet())
    s.save = lambda: None
    return s


@pytest.mark.parametrize("keep", ["last", "ema"])
def test_without_best_the_validation_labels_decide_nothing(keep):
    kept = []
    for labels in ([0, 1], [1, 0]):
        s = trained(keep)
        s.images.labels[6:] = torch.tensor(labels)
        for _ in range(3):
            s.train_epoch(Quiet())
        fitted = s.restore_kept()
        assert fitted.best_epoch == 3
        kept.append((copy.deepcopy(s.net.state_dict()), fitted.validation))
    assert all(torch.equal(kept[0][0][name], kept[1][0][name]) for name in kept[0][0])
    assert kept[0][1] == 100 - kept[1][1]  # measured, though


def test_the_last_epochs_weights_are_kept():
    s = trained("last")
    for _ in range(3):
        s.train_epoch(Quiet())
    last = copy.deepcopy(s.net.state_dict())
    s.net.linear.weight.data.zero_()
    s.restore_kept()
    assert all(torch.equal(last[name], value) for name, value in s.net.state_dict().items())


def test_what_is_validated_is_what_is_kept(monkeypatch):
    """With a moving average, its accuracy is reported, not the last weights'."""
    s, judged = trained("ema", "--ema_decay", "0.9"), []
    validate = lambda net, images: judged.append(copy.deepcopy(net.state_dict())) or 50.0  # noqa: E731
    monkeypatch.setattr(evaluation, "validate", validate)
    for _ in range(3):
        s.train_epoch(Quiet())
    last = s.net.linear.weight.detach().clone()
    s.restore_kept()
    assert torch.equal(s.net.linear.weight, judged[-1]["linear.weight"]) and not torch.equal(last, s.net.linear.weight)


def test_the_moving_average_is_of_all_updates_weights():
    s = trained("ema", "--ema_decay", "0.9")
    expected, step = None, s.step

    def followed(batch):
        nonlocal expected
        losses = step(batch)
        weight = s.net.linear.weight.detach()
        expected = weight.clone() if expected is None else 0.9 * expected + 0.1 * weight
        return losses

    s.step = followed
    for _ in range(3):
        s.train_epoch(Quiet())
    s.restore_kept()
    assert torch.allclose(s.net.linear.weight, expected, rtol=1e-5, atol=1e-7)


class Normed(toys.Halves):
    """A batch norm on the image."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def features(self, x):
        return super().features(self.norm(x))


def test_the_moving_average_has_the_batch_norms_statistics_too(monkeypatch):
    """The last update's would not fit the averaged weights."""
    monkeypatch.setattr(toys, "Halves", Normed)
    s = trained("ema", "--ema_decay", "0.9")
    expected, step = None, s.step

    def followed(batch):
        nonlocal expected
        losses = step(batch)
        spread = s.net.norm.running_var
        expected = spread.clone() if expected is None else 0.9 * expected + 0.1 * spread
        return losses

    s.step = followed
    s.train_epoch(Quiet())
    kept, last = s.average.module["net"].norm.running_var, s.net.norm.running_var
    assert torch.allclose(kept, expected, atol=1e-6) and not torch.allclose(kept, last, atol=1e-3)
