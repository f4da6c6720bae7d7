"""Labels counted once: which labels count, and teachers that depend only on labels, recipe and seed."""

import copy
import csv
import re
import shutil
from itertools import pairwise
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import augment, budget, data, distillation, evaluation, losses, networks, plan, training
from common.augment import View
from common.errors import Diverged, InputError
from common.files import lock
from common.teachers import per_round as teachers
from common.teachers import store, teacher
from common.teachers.fixmatch import OwnOutputs

from . import toys
from .conftest import BUDGET, TOY, parse, run

SMALL = "--teacher_labels labeled --teacher_epochs 1 --teacher_batch_size 40 --train_epochs 1".split()  # noqa: SIM905
CLOSED = SimpleNamespace(close=lambda: None)  # the run of a finished training


# Labels are counted


@pytest.mark.parametrize(
    ("words", "teacher", "seen"),
    [
        (["--keep", "last"], None, 40),
        (["--keep", "ema"], None, 40),
        (["--keep", "best"], None, 80),  # 40 validation labels choose the epoch
        (["--keep", "last"], range(100, 140), 40),  # the teacher's are the same
        (["--keep", "last"], range(240), 240),  # a teacher that saw every label
        (["--keep", "last"], range(120, 320), 220),  # one that also saw other images of the data set
        (["--keep", "best"], range(100, 140), 80),
        (["--keep", "best"], range(100, 200), 100),
        (["--keep", "best", "--val_labels", "bought", "--num_val", "10"], range(100, 140), 40),
        (["--keep", "last"], "unknown", None),
    ],
)
def test_every_label_that_any_network_saw_counts_once(words, teacher, seen):
    args = parse("KD", *words)
    first = 0 if args.val_labels == "bought" else 40  # of those that validate
    images = SimpleNamespace(val=torch.arange(first, first + args.num_val), origin=torch.arange(100, 340))
    this_round = SimpleNamespace(bought=torch.arange(40), images=images)
    known = teacher not in (None, "unknown")
    targets = None if teacher is None else SimpleNamespace(seen=torch.tensor(teacher) if known else None)
    assert evaluation.labels_in_all(args, this_round, targets) == seen


def test_the_labels_of_a_fair_teacher_that_is_named_count(first_round, images, tmp_path):
    """Regression: a round's file did not say whose labels it saw, so the report had no label count for its students."""
    teachers.fair(parse("KD", *SMALL, "--save_path", str(tmp_path / "fair")), images, images.pool[:60])
    (path,) = tmp_path.glob("fair/teachers/*/round_00.pt")
    _, record = store.load(parse("KD"), images, path)
    assert torch.equal(record["seen"], images.origin[images.pool[:60].sort().values])
    args, _, _, this_round = first_round("KD", "--teacher", str(path), "--keep", "last")
    both = torch.cat([images.pool[:60], this_round.bought]).unique()
    assert evaluation.labels_in_all(args, this_round, SimpleNamespace(seen=record["seen"])) == len(both)


def test_bought_validation_labels_come_from_the_pool_and_train_nothing(first_round):
    words = ["--val_labels", "bought", "--num_val", "10"]
    args, _, images, this_round = first_round("KD", *words)
    assert len(images.pool) == 200 and budget.label_counts(args, 200) == [40, 100, 160, 200]
    assert data.pool_size(args) == 200 and data.pool_size(parse("KD", "--num_val", "10")) == 190
    assert set(images.val.tolist()) <= set(this_round.bought.tolist()) and len(this_round.bought) == 40
    assert len(this_round.labeled) == 30 and not set(this_round.labeled.tolist()) & set(images.val.tolist())
    assert len(this_round.unlabeled) == 160 and not set(this_round.unlabeled.tolist()) & set(images.val.tolist())
    assert this_round.percent == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "= 160 pool + 40 val"), (["--val_labels", "bought"], "= 200 pool, of its first labels 40 val")],
)
def test_a_plan_says_where_the_validation_images_are(words, said, capsys, monkeypatch):
    monkeypatch.setattr(plan, "seconds_an_update", lambda *_: 1.0)
    args = parse("Random", "--initial_budget", "60", *words)
    plan.show(args, data.load(args))
    assert f"images     200 training {said}idation; " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--teacher_passes", "8"], "10.0 min (2 epochs) + 20.0 min (4 epochs) where"),  # 8 x 40 and 100 of 192
        (["--teacher_start", "before"], "25.0 min (5 epochs) + 15.0 min (3 epochs) where"),
        (["--teacher_pool", "self_training"], "40.0 min (8 epochs) + 40.0 min (8 epochs) where"),
    ],
)
def test_a_plan_says_how_long_each_rounds_teacher_is_trained(words, said, capsys, monkeypatch):
    """--teacher_passes caps --teacher_epochs where there are few labels."""
    monkeypatch.setattr(plan, "seconds_a_round", lambda args, images, epochs=0: 300.0 * epochs)
    flags = ["--teacher_labels", "labeled", "--teacher_epochs", "5", "--teacher_more_epochs", "3"]
    flags += ["--teacher_pool_epochs", "3", "--teacher_batch_size", "32", "--initial_budget", "40", "--rounds", "2"]
    args = parse("KD", *flags, *words)
    plan.show(args, data.load(args))
    # 57,044,810 weights, and the 20,345,802 that were trained
    text, number = capsys.readouterr().out, 4 if "self_training" in words else 2
    assert f"teacher    one of each round's labels, {said}" in text
    assert f"disk       {number} teachers at most, each with its outputs about 310 MB, in {args.save_path}/" in text


def test_a_plans_teachers_do_not_see_the_bought_validation_labels():
    """Regression: the plan had them trained on all bought labels, and with all of them in a second stage too."""
    words = ["--teacher_labels", "labeled", "--teacher_passes", "8", "--teacher_pool", "self_training"]
    args = parse(
        "KD", *words, "--teacher_batch_size", "32", "--teacher_epochs", "9", "--val_labels", "bought", "--num_val", "20"
    )
    planned = plan._fair_stages(args, [40, 100, 200])
    assert planned == [teachers.stages(args, count) for count in (20, 80, 180)]
    assert [len(stages) for stages in planned] == [2, 2, 1]


def test_bought_validation_labels_leave_some_to_train_on():
    args = parse("KD", "--val_labels", "bought")  # 40 of 40
    with pytest.raises(InputError, match=r"--val_labels bought --num_val 40.*lower --num_val"):
        budget.label_counts(args, 200)


# Fair teachers


@pytest.fixture
def trainings(monkeypatch):
    """The names of the rounds that were trained."""
    fit, found = teachers.trainer.fit, []

    def counted(args, run, this_round, net, targets=None, start=None, unfolded=False):
        found.append(this_round.label)
        return fit(args, run, this_round, net, targets, start, unfolded)

    monkeypatch.setattr(teachers.trainer, "fit", counted)
    return found


def test_a_fair_teacher_is_a_function_of_labels_recipe_and_seed(images, tmp_path, trainings):
    labels = images.pool[:40]

    def fair(*words, labels=labels):
        return teachers.fair(parse("KD", *SMALL, "--save_path", str(tmp_path), *words), images, labels)[0]

    first = fair()
    for words in (
        ["--lr_task", "0.5", "--step_size", "3"],
        ["--feat_wt", "1"],
        ["--expt", "other"],
        ["--batch_size", "20"],
    ):
        same = fair(*words)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    fair(labels=labels.flip(0))  # the order they were bought in
    assert len(trainings) == 1
    for count, words in enumerate((["--teacher_lr", "0.01"], ["--teacher_epochs", "2"], ["--seed", "6"]), 2):
        other = fair(*words)
        assert len(trainings) == count
        assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    fair(labels=images.pool[1:41])
    assert len(trainings) == 5
    fair("--teacher_pool", "self_training", "--teacher_pool_epochs", "1")  # continues from the teacher above
    assert len(trainings) == 6


def test_a_fair_teacher_of_other_answers_is_another(images, monkeypatch):
    """With --labels the data's fingerprint does not cover the labels."""
    places = []
    monkeypatch.setattr(
        teachers.trainer,
        "teacher",
        lambda args, images, labels, place, *_, **__: places.append(place) or (None, 0.0, CLOSED),
    )
    images.files = [f"{number}.png" for number in range(200)]
    args, labels = parse("KD", *SMALL), images.pool[:40]
    teachers.fair(args, images, labels)
    images.labels[images.pool[40]] += 1  # no network trains on it
    teachers.fair(args, images, labels)
    images.labels[labels[0]] += 1
    teachers.fair(args, images, labels)
    assert places[0] == places[1] != places[2]


def test_a_diverged_teacher_names_its_own_flag(images, tmp_path):
    """In KD, where --lr_task is the student's."""
    args = parse("KD", *SMALL, "--save_path", str(tmp_path), "--teacher_lr", "1e5")
    with pytest.raises(
        Diverged, match=r"teacher \(40 labels\), epoch 1: .*; lower --teacher_lr \(here 100000\) and start"
    ):
        teachers.fair(args, images, images.pool[:40])


@pytest.mark.parametrize(
    ("passes", "count", "epochs"), [(0, 40, 3), (10, 40, 2), (10, 20, 1), (10, 160, 3), (0.1, 40, 1)]
)
def test_a_fair_teacher_is_trained_as_long_as_its_labels_deserve(passes, count, epochs, images, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(teachers, "_kept", lambda args, *_, **__: found.append(args) or (None, 0.0, tmp_path))
    words = ["--teacher_passes", str(passes), "--teacher_epochs", "3", "--teacher_batch_size", "40"]
    teachers.fair(parse("KD", *SMALL[:2], *words), images, images.pool[:count])
    assert found[0].train_epochs == epochs and found[0].keep == "last"  # an epoch shows 200 images


def test_an_epoch_shows_whole_batches_alone():
    """Three of 60, not all 200 images: 9.5 passes over 50 labels are 2.6 epochs."""
    words = ["--teacher_passes", "9.5", "--teacher_epochs", "9", "--teacher_batch_size", "60"]
    assert teachers.fair_recipe(parse("KD", *SMALL[:2], *words), 50).train_epochs == 3


def test_a_teacher_has_its_own_weight_decay():
    words = ["--weight_decay", "0.2", "--teacher_weight_decay", "0.003"]
    args = parse("KD", *SMALL[:2], "--teacher_pool", "self_training", *words)
    assert [stage.weight_decay for stage in teachers.stages(args, 40)] == [0.003, 0.003]
    assert teachers.fair_recipe(parse("KD", *SMALL[:2], *words[:2]), 40).weight_decay == 0.0005


@pytest.mark.parametrize("kind", ["view", "mean"])
def test_a_second_teacher_learns_the_pool_from_the_first(kind, images, tmp_path, monkeypatch):
    seen = []

    def fit(args, run, this_round, net, targets=None, start=None, unfolded=False):
        seen.append((args, targets, this_round))
        return evaluation.Fitted(1, 0.0, 1.0, 1)

    monkeypatch.setattr(teachers.trainer, "fit", fit)
    words = ["--teacher_pool", "self_training", "--teacher_pool_epochs", "7", "--save_path", str(tmp_path)]
    words += ["--targets", kind, "--views", "3", "--shift", "2", "--feat_wt", "0"]
    words += ["--temperature", "0.8", "--logit_wt", "2"]  # the student's
    teachers.fair(parse("KD", *SMALL, *words), images, images.pool[:40])
    (first, none, _), (second, targets, this_round) = seen
    assert none is None and first.train_epochs == 1 and first.cutout == 0
    assert (second.train_epochs, second.distill_on, second.ce_wt, second.logit_loss) == (7, "pool", 0.0, "kl")
    assert (second.temperature, second.logit_wt) == (1.0, 1.0)
    assert second.cutout == 16 and second.shift == 8 and second.keep == "last"
    assert targets.logits.shape == (1, 200, 10)  # digits are not mirrored
    assert this_round.label == "teacher (40 labels, second)" and len(this_round.unlabeled) == 120
    with torch.no_grad():
        net = networks.build(first, "teacher").eval()  # what the first was left as
        index, views = torch.arange(5), distillation.fixed_views(parse("KD", *SMALL, *words), images)
        shown = (
            [views.of(index, torch.full_like(index, which)) for which in range(3)] if kind == "mean" else [View(index)]
        )
        expected = torch.stack([net(augment.pixels(images.train, view)) for view in shown]).mean(0)
    assert torch.allclose(targets.logits[0, :5], expected, atol=1e-5)


def test_a_second_teacher_is_another_where_what_it_learns_is():
    """The views whose mean it learns but does not see; with outputs by view they do not matter."""

    def second(*words):
        words = [*SMALL, "--teacher_pool", "self_training", "--feat_wt", "0", *words]
        return vars(teachers.stages(parse("KD", *words), 40)[1])

    shown = [["--views", "3", "--shift", "2"], ["--views", "4", "--shift", "2"], ["--views", "3", "--shift", "1"]]
    assert all(second(*shown[0], "--targets", "mean") != second(*words, "--targets", "mean") for words in shown[1:])
    assert all(second(*shown[0]) == second(*words) for words in shown[1:])


def test_a_second_teacher_goes_on_from_the_firsts_weights(images, tmp_path, monkeypatch):
    fit, seen = training.train, []

    def watched(args, run, this_round, net, **options):
        before = copy.deepcopy(net.state_dict())
        fitted = fit(args, run, this_round, net, **options)
        seen.append((before, copy.deepcopy(net.state_dict())))
        return fitted

    monkeypatch.setattr(training, "train", watched)
    words = ["--teacher_pool", "self_training", "--teacher_pool_epochs", "1", "--save_path", str(tmp_path)]
    teachers.fair(parse("KD", *SMALL, *words), images, images.pool[:40])
    (_, first), (second, after) = seen
    assert any("running_mean" in name for name in first)  # with batch norm, before it is folded
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert not all(torch.equal(first[name], value) for name, value in after.items())


def test_a_teacher_goes_on_from_the_round_befores(images, tmp_path, monkeypatch):
    fit, seen = training.train, []

    def watched(args, run, this_round, net, **options):
        before = copy.deepcopy(net.state_dict())
        fitted = fit(args, run, this_round, net, **options)
        seen.append((args, len(this_round.labeled), before, copy.deepcopy(net.state_dict())))
        return fitted

    monkeypatch.setattr(training, "train", watched)
    pool = images.pool
    words = [*SMALL, "--save_path", str(tmp_path), "--teacher_start", "before", "--teacher_more_epochs", "2"]
    args = parse("KD", *words)
    third, _ = teachers.fair(args, images, pool[:60], [pool[:20], pool[:40]])
    assert [labels for _, labels, _, _ in seen] == [20, 40, 60]
    assert [(flags.train_epochs, flags.lr_task / args.teacher_lr) for flags, *_ in seen] == [(1, 1), (2, 0.5), (2, 0.5)]
    for (*_, after), (_, _, before, _) in pairwise(seen):
        assert all(torch.equal(before[name], value) for name, value in after.items())
    teachers.fair(args, images, pool[:60], [pool[:20], pool[:40]])
    assert len(seen) == 3
    other, _ = teachers.fair(args, images, pool[:60], [pool[20:40], pool[:40]])  # same labels, bought otherwise
    assert len(seen) == 6
    assert not all(torch.equal(a, b) for a, b in zip(third.parameters(), other.parameters(), strict=True))


def test_each_round_of_a_run_goes_on_from_the_teacher_of_its_earlier_labels(tmp_path, monkeypatch):
    asked = []

    def fair(args, images, labeled, before):
        asked.append((labeled.tolist(), [earlier.tolist() for earlier in before]))
        return networks.build(args, "teacher").eval(), 50.0

    monkeypatch.setattr(teacher, "fair", fair)
    words = [*TOY, *BUDGET, *SMALL, "--rounds", "3", "--save_path", str(tmp_path), "--val_labels", "bought"]
    run("KD", *words, "--num_val", "10", "--teacher_start", "before")
    first, second, third = (labels for labels, _ in asked)
    assert [before for _, before in asked] == [[], [first], [first, second]]
    assert second[: len(first)] == first and third[: len(second)] == second and len(first) == 30


@pytest.mark.parametrize(
    ("kind", "labels", "names"),
    [
        ("none", 40, [("labeled", 0.05)]),
        ("self_training", 40, [("labeled", 0.05), ("pool", 0.0)]),
        ("fixmatch", 40, [("pool", 0.0)]),
        ("self_training", 160, [("labeled", 0.05)]),  # no image is left without its label
    ],
)
def test_the_stages_of_a_fair_teacher(kind, labels, names):
    stages = teachers.stages(parse("KD", *SMALL, "--teacher_pool", kind), labels)
    assert [(getattr(each, "distill_on", "labeled"), each.label_smoothing) for each in stages] == names
    assert stages[-1].lr_task == stages[0].lr_task / (2 if len(stages) == 2 else 1)  # starts from the first's weights


@pytest.mark.parametrize("kind", ["none", "self_training", "fixmatch"])
def test_runs_that_share_their_labels_share_the_teacher(kind, tmp_path, trainings):
    """Two methods at once would wait for each other: here they run in turn, and the second trains no teacher."""
    words = [*TOY, *BUDGET, *SMALL, "--rounds", "1", "--save_path", str(tmp_path), "--teacher_pool", kind]
    words += ["--teacher_pool_epochs", "1", "--warmup_epochs", "0"]
    run("KD", *words[:-2], "--expt", "first")
    trained = len(trainings)
    run("EnCoDe", *words, "--expt", "second")
    assert len(trainings) == trained == (2 if kind == "self_training" else 1)
    rows = []
    for name in ("first", "second"):
        with open(tmp_path / f"{name}-seed5" / "results.csv", newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    assert rows[0]["teacher_accuracy"] == rows[1]["teacher_accuracy"] != ""
    assert [row["teacher_pool"] for row in rows] == [kind] * 2
    assert [row["labels_in_all"] for row in rows] == ["80"] * 2  # 40 bought, 40 choose the best epoch


# FixMatch


class Noisy(nn.Module):
    """A linear layer on the image's mean, with batch norm and dropout."""

    def __init__(self, dropout):
        super().__init__()
        self.norm, self.dropout, self.linear = nn.BatchNorm2d(3), dropout, nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(self.dropout(self.norm(x)).mean((2, 3)))


@pytest.mark.parametrize("dropout", [nn.Dropout(0.9), nn.Dropout2d(0.9)])
def test_a_networks_own_outputs_are_of_the_unmoved_image_without_dropout(dropout):
    torch.manual_seed(0)  # of one initial layer in twenty the outputs hardly differ
    images, net = toys.images(), Noisy(dropout).train()
    images.train[:, :, 4:] = 0  # so that the images' means differ
    view = View(torch.tensor([0, 3, 4]), torch.tensor([True, False, False]), torch.tensor([[1, 1]] * 3),
                boxes=torch.tensor([[0, 8, 0, 8]] * 3))  # fmt: skip
    found = OwnOutputs(net, images).of(view)
    x = augment.pixels(images.train, View(view.index, view.mirrored))
    expected = net.linear(net.norm(x).mean((2, 3)))  # batch norm as in training
    assert expected.std(0).min() > 0.01
    assert torch.allclose(found.logits, expected, atol=1e-6) and not found.logits.requires_grad
    assert net.dropout.training and net.norm.training and found.features is None


def test_a_networks_own_outputs_are_of_the_image_mirrored_as_it_sees_it():
    images, net = toys.images(), toys.Halves()
    view = View(torch.tensor([0, 3, 4]), torch.tensor([True, False, True]))
    expected = net.classifier(toys.levels(view.index, view.mirrored))
    assert torch.allclose(OwnOutputs(net, images).of(view).logits, expected, atol=1e-6)


def test_pseudo_labels_count_where_the_teacher_is_sure():
    teacher = torch.tensor([[5.0, 0, 0], [1.0, 0, 0], [0, 0, 4.0]])  # 0.987, 0.58, 0.965
    student = torch.tensor([[1.0, 2, 3], [4, 5, 6], [0.5, 0, 1]])
    expected = (F.cross_entropy(student[:1], torch.tensor([0])) + F.cross_entropy(student[2:], torch.tensor([2]))) / 3
    assert losses.pseudo_label(student, teacher, None).item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses.pseudo_label(student, 0 * teacher, None) == 0


def test_a_teacher_that_learned_nothing_is_mentioned(first_round, tmp_path, capsys):
    args, run, images, _ = first_round("KD")
    images.test_labels = torch.arange(len(images.test)) % 10
    teach = teacher.Teacher(args, run, images)
    net = networks.build(args, "teacher")
    capsys.readouterr()
    for accuracy, said in (("23.40", True), ("23.60", False), ("", False)):
        teach._cache(net, "k" * 64, accuracy, 40)
        assert (f"note: a teacher of {accuracy}% is hardly better than guessing" in capsys.readouterr().out) == said


# A teacher that saw every label


def test_a_run_keeps_the_shared_teacher_that_it_began_with(first_round, monkeypatch):
    """Otherwise its rounds would have two teachers, and one row in the report."""
    args, run, images, _ = first_round("KD")
    path = store.shared_path(args)
    path.parent.mkdir()
    path.touch()
    nets = [nn.Linear(1, 1), nn.Linear(1, 1)]
    monkeypatch.setattr(teacher, "load", lambda *_: (nets[0], {}))
    monkeypatch.setattr(teacher.Teacher, "_cache", lambda self, net, key, *_: key)
    kept = [teacher.Teacher(args, run, images)._shared() for _ in range(2)]
    assert kept == [networks.fingerprint(nets[0])] * 2
    nets.reverse()
    with pytest.raises(InputError, match="is not the teacher this run began with; restore it or start under another"):
        teacher.Teacher(args, run, images)._shared()


def test_a_run_goes_on_with_its_teacher_where_another_takes_its_place(first_round, capsys):
    """Regression: if `Single --network teacher` replaced it, a run that had been stopped could never be finished."""
    args, run, images, _ = first_round("KD", "--num_images", "200")
    made = [networks.build(parse("KD", "--seed", seed), "teacher") for seed in ("1", "2")]
    path = store.shared_path(args)
    published = SimpleNamespace(**{**vars(teacher.trainer.shared_recipe(args)), "seed": 1})
    store.publish(published, run, images, made[0], 50.0)
    store.publish(published, run, images, made[0], 50.0)  # the same one again
    assert [*path.parent.glob("*.pt")] == [path] and "in place of" not in capsys.readouterr().out
    first = teacher.Teacher(args, run, images)._shared()
    store.publish(published, run, images, made[1], 60.0)
    aside = path.with_name(f"{path.stem}-{networks.fingerprint(made[0])[:12]}.pt")
    assert f"saved to {path}, in place of another, which is now {aside.name}\n" in capsys.readouterr().out
    assert torch.equal(teacher.Teacher(args, run, images)._shared().logits, first.logits)
    run.state["teacher"] = networks.fingerprint(made[1])
    assert not torch.equal(teacher.Teacher(args, run, images)._shared().logits, first.logits)
    path.write_bytes(b"no teacher")
    store.publish(published, run, images, made[0], 50.0)
    assert "in place of a file that was no teacher" in capsys.readouterr().out


def test_of_two_teachers_published_at_once_none_is_lost(first_round, monkeypatch):
    args, run, images, _ = first_round("KD", "--num_images", "200")
    made = [networks.build(parse("KD", "--seed", seed), "teacher") for seed in ("1", "2", "3")]
    published, save, others = teacher.trainer.shared_recipe(args), store.save_weights, []
    store.publish(published, run, images, made[0], 50.0)

    def between(*positional, **named):
        if not others:  # the second comes after the first has set the existing one aside
            others.append(Thread(target=store.publish, args=(published, run, images, made[2], 60.0)))
            others[0].start()
            others[0].join(1)
        save(*positional, **named)

    monkeypatch.setattr(store, "save_weights", between)
    store.publish(published, run, images, made[1], 60.0)
    others[0].join()
    kept = {networks.fingerprint(store.read(each)[0]) for each in store.folder(args).glob("*.pt")}
    assert kept == {networks.fingerprint(net) for net in made}


def test_a_teacher_of_fewer_images_than_the_runs_is_not_taken_silently(first_round, capsys):
    """Regression: the teacher of a short trial served every later run, and the report said it had seen all labels."""
    args, run, images, _ = first_round("KD", "--num_images", "200")
    made = SimpleNamespace(**{**vars(teacher.trainer.shared_recipe(args)), "num_images": 100})
    store.publish(made, run, images, networks.build(args, "teacher"), 50.0)
    path = store.shared_path(args)
    with pytest.raises(InputError, match=f"^{path}: was trained with --num_images 100, this run has 200; delete it or"):
        teacher.Teacher(args, run, images)._shared()
    run.state["teacher"] = networks.fingerprint(store.load(args, images, path)[0])  # it began before
    teacher.Teacher(args, run, images)._shared()
    del run.state["teacher"]
    args.teacher = str(path)
    teacher.Teacher(args, run, images)._shared()
    assert capsys.readouterr().out.count(f"teacher {path}: 50.00% test accuracy, 160 labels, epochs ") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ""),  # no other was asked for
        (["--teacher_epochs", "3", "--teacher_lr", "0.2"], ""),  # for the existing one
        (["--teacher_epochs", "5"], "--teacher_epochs 5 changes nothing, this teacher was trained with 3"),
        (["--teacher_lr", "0.3", "--teacher_batch_size", "64"], "--teacher_batch_size 64 changes nothing, .* with 32, "
         "--teacher_lr 0.3 changes nothing, .* with 0.2"),
        (["--teacher_weight_decay", "0.005"], "--teacher_weight_decay 0.005 changes nothing, .* with 0.0005"),
        (["--teacher_seed", "7"], "--teacher_seed 7 changes nothing, this teacher was trained with 2023"),
        (["--teacher_feature_rms", "1"], ""),  # it has no record
        (["--teacher_epochs", "50", "--teacher_passes", "3.6"], ""),  # which comes to 3 epochs
        (["--teacher_passes", "2.4"], r"--teacher_passes 2\.4 \(2 epochs\) changes nothing, .* trained for 3"),
        (["--teacher_batch_size", "300"], "--teacher_batch_size 300 changes nothing, .* with 32"),
    ],
)  # fmt: skip
def test_flags_of_a_teacher_that_is_there_already_are_named(words, said, first_round, monkeypatch, capsys):
    """Regression: runs with other --teacher_epochs had the same teacher, but an ablation made them separate rows."""
    args, run, images, _ = first_round("KD", *words)
    path = store.shared_path(args)
    path.parent.mkdir()
    path.touch()
    record = {"trained": {"train_epochs": 3, "lr_task": 0.2, "batch_size": 32, "weight_decay": 5e-4, "seed": 2023}}
    monkeypatch.setattr(teacher, "load", lambda *_: (nn.Linear(1, 1), record))
    monkeypatch.setattr(teacher.Teacher, "_cache", lambda self, net, key, *_: key)
    capsys.readouterr()
    teacher.Teacher(args, run, images)._shared()
    found = re.findall("^note: .*", capsys.readouterr().out, re.MULTILINE)
    assert len(found) == bool(said)
    assert set(teacher.ASKED.values()) <= set(store.KEPT.split())  # otherwise no teacher's record would tell
    assert not said or re.match(f"note: {said}; delete it or use another --save_path", found[0])


def test_a_run_notes_how_its_shared_teacher_was_trained_otherwise(first_round):
    """Its commands would train the usual one, where another made the numbers."""
    args, run, images, _ = first_round("KD", "--num_images", "200")
    usual = teacher.trainer.shared_recipe(args)
    for changes in ({}, {"train_epochs": 77, "fold_bn": False}):
        store.shared_path(args).unlink(missing_ok=True)
        run.state.pop("teacher", None)
        made = SimpleNamespace(**{**vars(usual), **changes})
        store.publish(made, run, images, networks.build(args, "teacher"), 50.0)
        teacher.Teacher(args, run, images)._shared()
        assert run.config.get("teacher_flags", {}) == changes


def test_a_round_keeps_the_fair_teacher_that_it_began_with(first_round, monkeypatch):
    """A deleted teacher that is trained again elsewhere is another network: a round must not have half of each."""
    args, run, images, this_round = first_round("KD", "--teacher_labels", "labeled")
    nets = [nn.Linear(1, 1), nn.Linear(1, 1)]
    monkeypatch.setattr(teacher, "fair", lambda *_: (nets[0], 50.0))
    monkeypatch.setattr(teacher.Teacher, "_cache", lambda self, net, key, *_: key)
    first = teacher.Teacher(args, run, images).targets(this_round)
    run.state["training"] = {}
    assert teacher.Teacher(args, run, images).targets(this_round) == first
    nets.reverse()
    with pytest.raises(InputError, match="its round 1 began with another teacher of these labels; restore"):
        teacher.Teacher(args, run, images).targets(this_round)
    run.state["training"] = None  # nothing is trained with the first one yet
    assert teacher.Teacher(args, run, images).targets(this_round) != first


def test_a_teacher_that_diverges_gives_its_folder_up(images, tmp_path):
    """Regression: a grid's next job in the process waited for the folder: whoever keeps the error keeps the run."""
    args = parse("KD", *SMALL, "--teacher_lr", "1000000", "--save_path", str(tmp_path))
    with pytest.raises(Diverged) as diverged:
        teachers.fair(args, images, images.pool[:40])
    (folder,) = (path for path in (tmp_path / "teachers").iterdir() if path.is_dir())
    assert lock(folder / ".lock", False, "") is not None and diverged.tb is not None


@pytest.mark.parametrize("fault", ["damaged", "no such file"])
def test_a_fair_teacher_without_its_weights_says_which_folder_to_delete(fault, images, tmp_path):
    """Regression: the error named --teacher, which was not given, and without the file alone the run never resumed."""
    args = parse("KD", *SMALL, "--save_path", str(tmp_path))
    known = teachers.fair(args, images, images.pool[:40])[1]
    (folder,) = (path for path in (tmp_path / "teachers").iterdir() if path.is_dir())
    weights = folder / "round_00.pt"
    if fault == "damaged":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    else:
        weights.unlink()
    with pytest.raises(InputError, match=f"round_00.pt: {fault}.*; delete {folder} to train another teacher$"):
        teachers.fair(args, images, images.pool[:40])
    shutil.rmtree(folder)
    assert teachers.fair(args, images, images.pool[:40])[1] == known


def test_a_teacher_whose_layers_were_changed_since_is_refused(images, tmp_path, monkeypatch):
    """Its weights are found by labels, recipe and seed, none of which a layer without weights changes."""
    args = parse("KD", *SMALL, "--save_path", str(tmp_path))
    teachers.fair(args, images, images.pool[:40])
    (folder,) = (path for path in (tmp_path / "teachers").iterdir() if path.is_dir())
    made = networks.PAIRS["AlexNet"].teacher

    def changed(count):
        net = made(count)
        net.classifier[7] = nn.LeakyReLU(0.5)
        return net

    monkeypatch.setattr(networks.PAIRS["AlexNet"], "teacher", changed)
    with pytest.raises(InputError, match=f"^{folder}: the network of this code .*; delete {folder} to train another"):
        teachers.fair(args, images, images.pool[:40])
    with pytest.raises(InputError, match=f"^--teacher {folder}/round_00.pt: the network of this code .*; train the te"):
        store.load(args, images, folder / "round_00.pt")


def test_a_shared_teacher_has_its_own_seeds_split_whichever_run_comes_first(tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        data, "load", lambda args: seeds.append(args.seed) or SimpleNamespace(pool=None, labels=torch.zeros(1))
    )
    monkeypatch.setattr(teacher.trainer, "teacher", lambda args, *_: seeds.append(args.seed) or (None, 0.0, CLOSED))
    monkeypatch.setattr(teacher, "publish", lambda *_: None)
    teacher._train_shared(parse("KD", "--seed", "9", "--teacher_seed", "3"), tmp_path / "teacher.pt")
    assert seeds == [3, 3]
