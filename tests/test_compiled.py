"""`--compile on`: an update in which nothing changes but tensors at fixed addresses, and the same losses compiled."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from common import data, fast, folding, networks, plan, samplers
from common.errors import InputError
from common.fast.inputs import Inputs
from common.teachers.fixmatch import OwnOutputs
from common.training import Session

from . import toys
from .conftest import parse
from .tape import Tape
from .toys import METHODS, Quiet, toy_session, trained


def taped(update, **options):
    """In place of torch.compile: each variant runs twice, is recorded in its third update, and replayed from there."""
    calls, tapes, losses = {}, {}, {}

    def run(batch, adversarial):
        calls[adversarial] = calls.get(adversarial, 0) + 1
        if calls[adversarial] <= 2:
            return update(batch, adversarial)
        if adversarial in tapes:
            tapes[adversarial].replay()
            return losses[adversarial]
        tapes[adversarial] = Tape()
        with tapes[adversarial]:
            losses[adversarial] = update(batch, adversarial)
        return losses[adversarial]

    return run


@pytest.fixture
def instead(monkeypatch):
    """A function that puts another in place of torch.compile."""
    monkeypatch.setattr(fast, "check", lambda compile, device: compile)
    return lambda compiler: monkeypatch.setattr(torch, "compile", compiler)


@pytest.mark.parametrize("method", METHODS)
def test_an_update_recorded_once_serves_for_all(method, instead):
    """No number of Python's changes in an update, and no input of it moves: a CUDA graph would freeze both."""
    instead(lambda update, **options: update)
    losses, weights = trained(method, "--compile", "on")
    instead(taped)
    again, same = trained(method, "--compile", "on")
    assert again == losses and len(losses) == 12
    assert all(torch.equal(same[name], weights[name]) for name in weights)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_compiler_the_update_is_the_plain_one_but_for_the_rates_rounding(method, instead):
    instead(lambda update, **options: update)
    losses, _ = trained(method, "--compile", "on")
    plain, _ = trained(method)
    assert [each.keys() for each in losses] == [each.keys() for each in plain]
    for ours, theirs in zip(losses, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_schedule_and_files_keep_numbers(instead):
    instead(lambda update, **options: update)
    s = toy_session("EnCoDe", "--compile", "on", "--lr_task", "0.25")
    seen, update = [], s.sampler.step
    groups = s.optimizers["task"].param_groups
    s.sampler.step = lambda *batch: seen.append([group["lr"] for group in groups]) or update(*batch)
    for batch in list(s.batches())[:2]:
        s.step(batch)
        assert [type(group["lr"]) for optimizer in s.optimizers.values() for group in optimizer.param_groups] == [
            float
        ] * 4
    assert [rate.item() for rate in seen[0]] == pytest.approx([0.25, 0.01])
    assert [a is b for a, b in zip(*seen, strict=True)] == [True, True]


def test_inputs_keep_their_addresses_and_take_each_batch():
    inputs, s, addresses = Inputs([]), toy_session("EnCoDe"), []
    for batch in s.batches():
        held = inputs.take(batch)
        assert type(held) is type(batch) and held.pool is None
        pairs = zip(tree_leaves(held), tree_leaves(batch), strict=True)
        assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs if b is not None)
        addresses.append([leaf.data_ptr() for leaf in tree_leaves(held) if leaf is not None])
    assert len(addresses) == 4 and all(each == addresses[0] for each in addresses)


def test_rates_are_numbers_again_after_a_fault():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    with pytest.raises(KeyError), Inputs([optimizer]).rates_as_tensors():
        raise KeyError
    assert optimizer.param_groups[0]["lr"] == 0.5 and isinstance(optimizer.param_groups[0]["lr"], float)


def test_a_machine_without_a_compiler_says_so():
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(InputError) as refusal:
        fast.check("on", torch.device("cpu"))
    assert str(refusal.value).startswith("--compile on: torch.compile does not work on this machine (")
    assert "install a C++ compiler (g++) or use --compile off" in str(refusal.value)


def test_the_machine_is_checked_for_those_who_compile_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(fast, "compiles", asked.append)
    parse("KD")
    parse("KD", "--compile", "on")
    assert asked == [torch.device("cpu")]


def has_compiler() -> bool:
    try:
        fast.check("on", torch.device("cpu"))
    except InputError:
        return False
    return True


def losses_of(model: str, method: str, *words: str, network: str = "student", each: int = 2) -> list[dict]:
    """The losses of so many updates without and with the adversarial term, of a pair's networks on digits."""
    args = parse(method, *METHODS[method], "--train_epochs", "2", *words, model=model)
    images = data.load(args)
    pool = images.pool
    this_round = SimpleNamespace(number=0, label="", images=images, labeled=pool[:40], unlabeled=pool[40:])
    net, decoder, targets, sampler = networks.build(args, network), None, None, None
    if method != "Random":
        source = torch.Generator().manual_seed(0)
        decoder, targets = networks.build(args, "decoder"), plan.stand_in(args, images)
        targets.z = torch.randn(*targets.z.shape, generator=source).abs_().div_(10).to(images.device)
        targets.logits = torch.randn(*targets.logits.shape, generator=source).to(images.device)
    if method == "EnCoDe":
        sampler = samplers.build(args, this_round, net, targets)
    net = folding.to_train(args, net, 0)
    s, found = Session(args, Quiet(), this_round, net, decoder, targets, sampler), []
    s.modules.train()
    for s.epoch in range(2):
        for batch in itertools.islice(s.batches(), each):
            found.append({name: value.item() for name, value in s.step(batch).items()})
            s.schedule.step()
    return found


@pytest.mark.campaign  # a minute of compiling each, ten on a busy machine
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["AlexNet", "ResNet"])
def test_compiled_updates_have_the_same_losses(model, method):
    if not has_compiler():
        pytest.skip("torch.compile does not work here: no C++ compiler?")
    plain, ours = losses_of(model, method), losses_of(model, method, "--compile", "on")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # something was compiled
    assert ("adv" in ours[0], "adv" in ours[-1]) == (False, method == "EnCoDe")
    for compiled, eager in zip(ours, plain, strict=True):
        assert compiled == pytest.approx(eager, rel=1e-4)


def test_a_network_that_learns_from_itself_has_no_outputs_that_stay(images, monkeypatch):
    """A teacher of --teacher_pool fixmatch under --compile on: it was asked for features and logits that it has not."""
    args, net, kept = parse("Single", "--network", "teacher", "--compile", "on"), torch.nn.Linear(1, 1), []
    monkeypatch.setattr(fast, "compiled", lambda update, optimizers, resident: kept.extend(resident))
    this_round = SimpleNamespace(number=0, labeled=images.pool[:40], unlabeled=images.pool[40:], images=images)
    for targets in (OwnOutputs(net, images), None, toys.targets()):
        Session(args, None, this_round, net, None, targets)
    assert [each is None for each in kept] == [False, False, True, True] * 2 + [False] * 4
