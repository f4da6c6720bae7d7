"""`--compile graph`: an update recorded once serves for all, on stand-ins for a GPU's streams and graphs."""

import gc
import weakref
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from common import data, fast, plan, training
from common.errors import InputError
from common.fast import graphs
from common.fast.inputs import Inputs

from . import test_gpu, toys
from .conftest import MODELS, parse
from .tape import Tape
from .toys import METHODS, Quiet, toy_session, trained

CUDA = torch.device("cuda")
MADE: list = []
LOG: list[str] = []


class Graph:
    """Replaces CUDAGraph: what is recorded runs once on the way, so the first replay does nothing."""

    def __init__(self):
        self.tape, self.replays = Tape(), 0
        MADE.append(self)

    def replay(self) -> None:
        if self.replays:
            self.tape.replay()
        self.replays += 1


class Stream:
    """Replaces torch.cuda's streams: LOG records what is done with it."""

    def __init__(self, device=None):
        self.device, self.name = device, "beside" if device is not None else "current"
        LOG.append(f"{self.name} is made")

    def wait_stream(self, other) -> None:
        LOG.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def gpu(monkeypatch):
    """Stand-ins in torch.cuda, with `--compile graph` on the CPU."""
    MADE.clear()
    graphs._stream.cache_clear()
    monkeypatch.setattr(fast, "check", lambda compile, device: compile)

    @contextmanager
    def stream(which):
        LOG.append("on " + which.name)
        yield

    @contextmanager
    def graph(which, stream):
        with which.tape:
            yield

    current = Stream()
    LOG.clear()
    stand_ins = {"Stream": Stream, "stream": stream, "current_stream": lambda device: current}
    for name, stand_in in {**stand_ins, "CUDAGraph": Graph, "graph": graph}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


@pytest.mark.parametrize("method", METHODS)
def test_replays_have_the_losses_and_weights_of_plain_updates(method, gpu, monkeypatch):
    losses, weights = trained(method, "--compile", "graph")
    # 12 updates; EnCoDe's adversarial ones, after the first epoch of four, are another graph
    assert [graph.replays for graph in MADE] == ([1, 5] if method == "EnCoDe" else [9])
    MADE.clear()
    monkeypatch.setattr(graphs, "PLAIN", 100)
    plain, same = trained(method, "--compile", "graph")
    assert not MADE and plain == losses
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.parametrize("method", METHODS)
def test_the_update_is_the_plain_one_but_for_the_rates_rounding(method, gpu):
    losses, _ = trained(method, "--compile", "graph")
    plain, _ = trained(method)
    assert [each.keys() for each in losses] == [each.keys() for each in plain]
    for ours, theirs in zip(losses, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_schedule_and_files_keep_numbers(gpu):
    s = toy_session("EnCoDe", "--compile", "graph", "--lr_task", "0.25")
    seen, update = [], s.sampler.step
    groups = s.optimizers["task"].param_groups
    s.sampler.step = lambda *batch: seen.append([group["lr"] for group in groups]) or update(*batch)
    for batch in list(s.batches())[:2]:
        s.step(batch)
        all_groups = [group for optimizer in s.optimizers.values() for group in optimizer.param_groups]
        assert [type(group["lr"]) for group in all_groups] == [float] * 4
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


def test_losses_are_kept_when_the_next_replay_overwrites_them(gpu):
    losses, _ = trained("KD", "--compile", "graph")  # read after all updates
    assert len({each["loss"] for each in losses}) == 12


def test_what_is_launched_beside_waits_and_is_waited_for(gpu):
    trained("Random", "--compile", "graph")
    each = ["beside waits for current", "on beside", "current waits for beside"]
    assert ["beside is made", *each * 4] == LOG  # three plain, one recorded


def test_trainings_share_a_stream(gpu):
    """Each would have its own cuBLAS workspace, which older torch never frees."""
    for _ in range(2):
        trained("Random", "--compile", "graph")
    assert LOG.count("beside is made") == 1


def test_adam_is_capturable_while_it_is_recorded_alone(gpu, monkeypatch):
    seen, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self: seen.append([g["capturable"] for g in self.param_groups]) or step(self)
    )
    trained("EnCoDe", "--compile", "graph")
    each = [[False]] * 6 + [[True]] * 2  # VAE and discriminator: three plain updates, one recorded
    assert seen == each * 2


def test_an_update_that_cannot_be_recorded_is_named(gpu, monkeypatch):
    @contextmanager
    def graph(which, stream):
        yield
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    with pytest.raises(InputError) as refusal:
        trained("KD", "--compile", "graph")
    reason = "operation not permitted when stream is capturing"
    assert str(refusal.value) == f"--compile: this update cannot be recorded ({reason}); use --compile off"


def test_a_full_gpu_is_not_taken_for_an_update_that_cannot_be_recorded(gpu, monkeypatch):
    @contextmanager
    def graph(which, stream):
        yield
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "graph", graph)
    with pytest.raises(torch.OutOfMemoryError):
        trained("KD", "--compile", "graph")


def test_a_full_gpu_is_named_where_the_end_of_the_recording_fails_of_it(gpu, monkeypatch):
    @contextmanager
    def graph(which, stream):
        yield
        try:
            raise torch.OutOfMemoryError
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    with pytest.raises(torch.OutOfMemoryError):
        trained("KD", "--compile", "graph")


def test_the_flag_means_graphs_on_a_gpu_alone():
    assert fast.check("auto", CUDA) == fast.check("graph", CUDA) == "graph"
    assert fast.check("auto", torch.device("cpu")) == fast.check("off", CUDA) == "off"
    assert parse("KD").compile == "off"
    with pytest.raises(InputError, match=r"^--compile graph: cpu has no CUDA graphs; use --device cuda"):
        parse("KD", "--compile", "graph")


@pytest.mark.parametrize("fails", [False, True])
def test_a_round_that_ends_or_fails_lets_its_graph_go(fails, gpu, monkeypatch):
    """Regression: a failed one's waited for the garbage collector, and then freed what the next one had recorded."""

    def save(session):
        assert session.compiled and MADE
        if fails:
            raise KeyboardInterrupt

    run = Quiet()
    run.state, run.bar = {"training": None}, lambda *_: nullcontext(run)
    monkeypatch.setattr(training.Session, "save", save)
    args, *others = toys.parts("Random", "--train_epochs", "1", "--compile", "graph")
    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt) if fails else nullcontext() as caught:
            training.train(args, run, *others)
        del caught  # its traceback holds the session
        graph = weakref.ref(MADE.pop())
        assert graph() is None
    finally:
        gc.enable()


def test_the_flags_of_the_gpu_tests_are_accepted():
    """Regression: one of them contradicted another, which no machine without a GPU noticed."""
    for method, network, words in test_gpu.CASES.values():
        for model in MODELS:
            if model != "ResNet" or "--fold_bn" not in words:
                parse(
                    method,
                    *METHODS[method],
                    *words,
                    *(["--network", network] if method == "Random" else []),
                    model=model,
                )


def test_a_configuration_that_was_timed_lets_its_graph_go(gpu):
    """Its memory would count when the grid says how many runs fit the GPU."""
    args = parse("Random", "--compile", "graph")
    images = data.load(args)
    gc.disable()
    try:
        plan.seconds_an_update(args, images, timed=1)
        graph = weakref.ref(MADE.pop())
        assert graph() is None
    finally:
        gc.enable()


def test_the_end_of_a_graph_is_no_part_of_the_timed_updates(gpu, monkeypatch):
    """The fake clock advances with each graph that is freed."""
    ended = []
    kept = SimpleNamespace(append=lambda graph: weakref.finalize(graph, ended.append, "graph"))
    monkeypatch.setitem(globals(), "MADE", kept)
    monkeypatch.setattr(plan, "time", SimpleNamespace(perf_counter=lambda: float(len(ended))))
    args = parse("Random", "--compile", "graph")
    assert plan.seconds_an_update(args, data.load(args), timed=1) == 0 and ended == ["graph"]
