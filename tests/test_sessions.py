"""A round's training from its first epoch to its last: resumed as if never stopped, timed, shown and logged."""

import copy
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import evaluation, networks, training
from common.errors import InputError
from common.schema import LOSSES, TABLES
from common.seeds import derive

from . import toys
from .toys import Quiet, toy_session

WORDS = ("--train_epochs", "4", "--warmup_epochs", "1", "--feat_wt", "0.01", "--lr_task", "0.003")


class Bar(Quiet):
    """A progress bar that records what it showed."""

    def __init__(self, total=None, done=0, description=""):
        super().__init__()
        self.begun, self.n, self.shown, self.steps = (total, done, description), done, [], []

    def set_postfix(self, **shown):
        self.shown.append(shown)

    def update(self, count):
        super().update(count)
        self.steps.append(count)


class Kept(Quiet):
    """A run with its state in memory; `kept` is what would be on disk."""

    folder = Path("runs/toy")

    def __init__(self, training_state=None):
        super().__init__()
        self.state, self.saves, self.bars, self.lines = {"training": training_state}, [], [], []

    def save(self):
        self.saves.append(copy.deepcopy(self.state["training"]))

    def log(self, message):
        self.lines.append(message)

    @contextmanager
    def bar(self, *begun):
        self.bars.append(Bar(*begun))
        yield self.bars[-1]


def judged(monkeypatch, accuracies):
    found = iter(accuracies)
    monkeypatch.setattr(evaluation, "accuracy", lambda *_: next(found))


def scripted(s, *losses):
    """Makes the session's updates return these losses and change nothing."""
    found = iter(losses)
    s.step = lambda *_: (
        s.optimizers["task"].step() or {name: torch.tensor(value) for name, value in next(found).items()}
    )


def fitted(method, state=None, words=WORDS):
    """`fit` on the toy: its result, the run, and the weights of student, decoder and sampler."""
    run = Kept(state)
    torch.manual_seed(1)  # the decoder's first weights
    args, this_round, net, decoder, targets, sampler = toys.parts(method, *words)
    result = training.fit(args, run, this_round, net, decoder, targets, sampler)
    modules = [net, *([decoder, sampler.networks] if sampler else [])]
    return result, run, [weight for module in modules for weight in module.state_dict().values()]


def test_fit_trains_the_student_the_decoder_and_the_sampler(monkeypatch):
    judged(monkeypatch, [50.0, 60.0, 70.0, 80.0])
    result, run, weights = fitted("EnCoDe")
    assert (result.best_epoch, result.validation, result.updates) == (4, 80.0, 16) and result.seconds > 0
    assert [bar.begun for bar in run.bars] == [(16, 0, "round 1/1")] and run.bars[0].n == 16
    assert len(run.saves) == len(run.rows) == 4
    torch.manual_seed(1)
    _, _, net, decoder, _, sampler = toys.parts("EnCoDe", *WORDS)
    before = [weight for module in (net, decoder, sampler.networks) for weight in module.state_dict().values()]
    assert all(not torch.equal(old, new) for old, new in zip(before, weights, strict=True))


@pytest.mark.parametrize("best", [1, 3])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(best, monkeypatch):
    """Weights, momentum, schedule, best weights: after epoch 2 of 4 all come from the state."""
    accuracies = [50.0, 50.0, 50.0, 50.0]
    accuracies[best - 1] = 60.0
    words = (*WORDS, "--schedule", "onecycle")
    judged(monkeypatch, accuracies)
    _, run, expected = fitted("EnCoDe", words=words)
    judged(monkeypatch, accuracies[2:])
    result, resumed, weights = fitted("EnCoDe", run.saves[1], words)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert (result.best_epoch, result.validation, result.updates) == (best, 60.0, 16)
    assert result.seconds > run.saves[1]["seconds"] > 0
    assert resumed.rows == run.rows[2:] and [bar.begun for bar in resumed.bars] == [(16, 8, "round 1/1")]
    assert {name.split(".")[0] for name in run.saves[0]["modules"]} == {"net", "decoder", "sampler"}
    for name, value in run.saves[-1]["modules"].items():  # also the last weights, not only the best
        assert torch.equal(value, resumed.saves[-1]["modules"][name]), name


@pytest.mark.parametrize("keep", ["last", "ema"])
def test_a_killed_training_keeps_what_it_would_have(keep, monkeypatch):
    words = (*WORDS, "--keep", keep, "--ema_decay", "0.8")
    judged(monkeypatch, [50.0, 90.0, 50.0, 40.0])
    _, run, expected = fitted("EnCoDe", words=words)
    judged(monkeypatch, [50.0, 40.0])
    result, _, weights = fitted("EnCoDe", run.saves[1], words)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert (result.best_epoch, result.validation) == (4, 40.0)


@pytest.mark.parametrize(("first", "then"), [("auto", "off"), ("off", "auto")])
def test_a_killed_training_goes_on_with_other_layers_and_its_momentum(first, then, monkeypatch):
    """`--fast` decides the memory layout of weights; a fused step reads weight and momentum as they are laid out."""

    def session(choice, state=None):
        args, this_round, *_ = toys.parts("Random", "--train_epochs", "2", "--fast", choice)
        monkeypatch.setattr(this_round.images, "train", this_round.images.train.repeat(1, 8, 8, 1))
        s = training.Session(args, Kept(state), this_round, networks.build(args, "student"))
        s.resume()
        return s

    s = session(first)
    s.train_epoch(Bar())
    s.save()
    other = session(then, copy.deepcopy(s.run.saves[-1]))
    for weight, same in zip(s.net.parameters(), other.net.parameters(), strict=True):
        ours, theirs = (each.optimizers["task"].state[w]["momentum_buffer"] for each, w in ((s, weight), (other, same)))
        assert torch.equal(ours, theirs) and theirs.stride() == same.stride()
    for each in (s, other):
        each.modules.train()
        each.step(next(each.batches()))
    for weight, same in zip(s.net.parameters(), other.net.parameters(), strict=True):
        assert torch.allclose(weight, same, rtol=1e-4, atol=1e-6)


class Normed(toys.Halves):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def features(self, x):
        return self.norm(super().features(x))


def test_the_average_of_weights_has_the_average_of_batch_norms_statistics():
    """The last network's belong to other weights. From the first update on, a = 0.75 a + 0.25 now."""
    args, this_round, *_ = toys.parts("Random", "--keep", "ema", "--ema_decay", "0.75", "--train_epochs", "1")
    s, seen = training.Session(args, Quiet(), this_round, Normed()), []
    step = s.step
    s.step = lambda batch: (step(batch), seen.append(s.modules["net"].norm.running_var.clone()))[0]
    s.train_epoch(Quiet())
    expected = seen[0]
    for now in seen[1:]:
        expected = 0.75 * expected + 0.25 * now
    assert len(seen) == 4 and not torch.allclose(seen[-1], expected)
    s.restore_kept()
    assert torch.allclose(s.modules["net"].norm.running_var, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_average_is_torchs_to_the_last_bit(layout):
    """Including a weight that two layers share, which has two names and must not be averaged twice."""
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)).to(memory_format=layout)
    net[2].weight = net[0].weight
    average = get_ema_multi_avg_fn(0.75)
    ours = training.Average(net, multi_avg_fn=average)
    theirs = AveragedModel(net, multi_avg_fn=average, use_buffers=True)
    for _ in range(4):
        net(torch.randn(2, 3, 8, 8))
        with torch.no_grad():
            net[0].weight.add_(torch.randn(3, 3, 3, 3))
        ours.update_parameters(net)
        theirs.update_parameters(net)
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    assert all(a.stride() == b.stride() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_finished_training_has_nothing_left_to_do(monkeypatch):
    judged(monkeypatch, [50.0, 60.0, 70.0, 60.0])
    words = ("--train_epochs", "4")
    _, run, expected = fitted("Random", words=words)
    result, again, weights = fitted("Random", run.saves[-1], words)  # all accuracies are used: no epoch is left
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert result.best_epoch == 3 and not again.saves


def test_a_state_of_other_networks_is_refused():
    s = toy_session("KD", run=Kept())
    s.save()
    message = r"^runs/toy/state.pt: is not of this run's networks \((.*)\); delete it to start the run anew$"
    with pytest.raises(InputError, match=message) as refused:
        toy_session("EnCoDe", run=Kept(s.run.state["training"])).resume()
    reason = str(refused.value).split("(", 1)[1].split("); delete")[0]
    assert reason.startswith("Error(s) in loading state_dict for ModuleDict: Missing key(s)") and len(reason) == 200
    for missing in ("optimizers", "schedule", "best_epoch"):
        state = {name: value for name, value in s.run.state["training"].items() if name != missing}
        with pytest.raises(InputError, match=message.replace("(.*)", f"'{missing}'")):
            toy_session("KD", run=Kept(state)).resume()


def test_dropout_of_an_epoch_follows_from_seed_round_and_epoch(monkeypatch):
    """It draws from torch's own generator."""
    judged(monkeypatch, [50.0] * 4)
    s = toy_session("Random", "--seed", "7", run=Quiet())
    s.round.number, found, step = 3, [], s.step
    s.step = lambda batch: found.append(torch.initial_seed()) or step(batch)
    for _ in range(2):
        s.train_epoch(Quiet())
    expected = [derive(7, "dropout", 3, epoch) for epoch in (0, 1)]
    assert found == [seed for seed in expected for _ in range(4)]
    assert [row["round"] for row in s.run.rows] == [3, 3]


def test_means_so_far_are_shown_now_and_then_and_at_the_end(monkeypatch):
    """Every third of four updates: after 3 and 4 of the first epoch, of 4 on in the second."""
    monkeypatch.setattr(training, "READ_EVERY", 3)
    judged(monkeypatch, [25.0, 20.0, 30.0])
    s, bar = toy_session("Random", run=Quiet()), Bar(done=100)
    scripted(s, *({"loss": value} for value in (1.0, 2.0, 6.0, 7.0, 1.0, 1.0, 1.0, 5.0, 3.0, 3.0, 3.0, 3.0)))
    for _ in range(3):
        s.train_epoch(bar)
    assert bar.steps == [3, 1, 3, 1, 3, 1] and bar.n == 112
    assert [(shown["epoch"], shown.get("val"), shown["loss"]) for shown in bar.shown] == [
        ("1/2", None, "3"),
        ("1/2", None, "4"),
        ("2/2", "25.00", "1"),
        ("2/2", "25.00", "2"),
        ("3/2", "20.00", "3"),  # the last one, as in the log, not the best
        ("3/2", "20.00", "3"),
    ]
    assert all(shown["refresh"] is False for shown in bar.shown)
    assert [row["loss"] for row in s.run.rows] == ["4", "2", "3"]


def test_the_bar_is_of_all_rounds(monkeypatch):
    """The second of three rounds, killed after its second epoch of four."""
    judged(monkeypatch, [50.0] * 4)
    args, this_round, *others = toys.parts("Random", "--train_epochs", "4")
    this_round.number, this_round.counts, this_round.label = 1, [2, 4, 6], "round 2/3 (4 labels, 50%)"
    run = Kept()
    training.fit(args, run, this_round, *others)
    judged(monkeypatch, [50.0] * 2)
    again = Kept(run.saves[1])
    training.fit(args, again, this_round, *others)
    begun = [(48, 16, this_round.label), (48, 24, this_round.label)]
    assert [run.bars[0].begun, again.bars[0].begun] == begun and run.bars[0].n == again.bars[0].n == 32


def test_an_epochs_line_says_what_it_reached_and_how_long_the_others_will_take(monkeypatch):
    """By this clock the first epoch takes 55 seconds with three left; both take 121 with two left."""
    clock = iter([100.0, 155.0, 1000.0, 1066.0])
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    judged(monkeypatch, [25.0, 50.0])
    s = toy_session("KD", "--train_epochs", "4", run=Kept())
    scripted(s, *[{"loss": 2.0, "ce": 0.123456}] * 8)
    s.train_epoch(Quiet())
    s.train_epoch(Quiet())
    assert s.run.lines == [
        "round 1/1: epoch 1/4 loss 2 ce 0.1235 val 25.00, 02:45 left",
        "round 1/1: epoch 2/4 loss 2 ce 0.1235 val 50.00, 02:01 left",
    ]
    assert s.run.rows == [
        {"round": 0, "epoch": 1, "loss": "2", "ce": "0.123456", "val_accuracy": "25.00"},
        {"round": 0, "epoch": 2, "loss": "2", "ce": "0.123456", "val_accuracy": "50.00"},
    ]
    assert s.restore_kept().seconds == 121


def test_every_term_is_kept_by_epoch_and_one_without_a_column_is_only_said(monkeypatch):
    """A term that joins after an epoch is blank before that."""
    judged(monkeypatch, [25.0, 50.0])
    s = toy_session("EnCoDe", *WORDS, run=Kept())
    parts = {name: float(number) for number, name in enumerate(("feat", "logit", "vae", "disc"), 1)}
    scripted(s, *[{"loss": 9.0, **parts, "own": 3.0}] * 4, *[{"loss": 9.0, **parts, "adv": 7.0}] * 4)
    s.train_epoch(Quiet())
    s.train_epoch(Quiet())
    terms = {"loss": "9", "feat": "1", "logit": "2", "vae": "3", "disc": "4"}
    assert s.run.rows == [
        {"round": 0, "epoch": 1, **terms, "val_accuracy": "25.00"},
        {"round": 0, "epoch": 2, **terms, "adv": "7", "val_accuracy": "50.00"},
    ]
    assert "own 3" in s.run.lines[0] and all(set(row) <= set(TABLES["history"]) for row in s.run.rows)


def test_every_loss_of_the_objective_and_the_samplers_has_a_column(monkeypatch):
    judged(monkeypatch, [50.0] * 40)
    logged = set()
    for sampler in ("vae", "discriminator"):
        s = toy_session("EnCoDe", *WORDS, "--sampler", sampler, "--logit_wt", "0.1", run=Kept())
        for _ in range(2):
            s.train_epoch(Quiet())
        logged |= set(s.run.rows[-1])
    assert logged == {"round", "epoch", "loss", "val_accuracy", *LOSSES}
