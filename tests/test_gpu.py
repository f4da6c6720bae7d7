"""On a real GPU, if there is one: what `test_device` cannot see without it."""

import csv
import gc
import itertools
from types import SimpleNamespace

import pytest
import torch

from common import data, folding, networks, plan, samplers
from common.fast import graphs
from common.files import read_tensors
from common.losses import FEATURE_LOSSES, LOGIT_LOSSES
from common.training import Session

from .conftest import BUDGET, MODELS, TOY, parse, run
from .toys import METHODS, Quiet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
KL = "--logit_loss kl --logit_wt 1"
CASES = {
    **{method: (method, "student", []) for method in METHODS},
    "teacher": ("Random", "teacher", []),  # AlexNet's draws dropout
    "VAE of images": ("EnCoDe", "student", ["--sampler_input", "images"]),
    "discriminator": ("EnCoDe", "student", ["--sampler", "discriminator"]),
    "batch norm": ("KD", "student", ["--fold_bn"]),
    "mixup": ("KD", "student", f"--mixup 1 {KL} --shift 3 --targets mean --views 2 --feat_wt 0".split()),
    "moved, cut out": ("Random", "student", ["--shift", "3", "--cutout", "8", "--label_smoothing", "0.1"]),
    "labels": ("KD", "student", ["--distill_on", "labeled", "--logit_loss", "dkd", "--logit_wt", "1"]),
    **{name: ("KD", "student", ["--logit_loss", name, "--logit_wt", "1"]) for name in LOGIT_LOSSES},
    **{f"{name} of features": ("KD", "student", ["--feature_loss", name]) for name in FEATURE_LOSSES},
}


def losses_of(model: str, method: str, *words: str, network: str = "student", each: int = 2) -> list[dict]:
    """The losses of some updates without and with the adversarial term, of a pair's networks on digits."""
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
    s.compiled = None  # frees its graph before the next one is recorded
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_the_losses_are_a_cpus_but_for_rounding(model, method):
    ours, theirs = losses_of(model, method, "--device", "cuda"), losses_of(model, method)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4, abs=1e-5)
    for gpu, cpu in zip(ours[1:], theirs[1:], strict=True):  # batch norm over few images amplifies rounding
        assert gpu == pytest.approx(cpu, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", MODELS)
def test_a_recorded_update_has_the_plain_ones_losses_to_the_last_bit(model, case, monkeypatch):
    method, network, words = CASES[case]
    if model == "ResNet" and "--fold_bn" in words:
        pytest.skip("it has batch norm of its own")
    words = [*words, "--device", "cuda", "--compile", "graph"]
    recorded = losses_of(model, method, *words, network=network, each=5)
    monkeypatch.setattr(graphs, "PLAIN", 1000)
    assert losses_of(model, method, *words, network=network, each=5) == recorded


RUNS = {
    "Single": ("Single", []),
    "teacher": ("Single", ["--network", "teacher", "--keep", "last"]),  # with dropout
    "Random": ("Random", BUDGET),
    "ema": ("Random", [*BUDGET, "--keep", "ema", "--ema_decay", "0.8"]),
    "KD": ("KD", [*BUDGET, "--teacher_epochs", "1"]),
    "EnCoDe": ("EnCoDe", [*BUDGET, "--teacher_epochs", "1", "--warmup_epochs", "1"]),
    "fair": ("KD", [*BUDGET, "--teacher_epochs", "1", "--recipe", "fair"]),
    "fixmatch": ("KD", [*BUDGET, "--recipe", "fair", "--teacher_pool", "fixmatch", "--teacher_pool_epochs", "1"]),
}


def run_in(folder, case: str, *words: str) -> None:
    """One run on the GPU, with three epochs per round."""
    method, more = RUNS[case]
    words = [*TOY, "--device", "cuda", "--train_epochs", "3", *more, *words]
    run(method, *words, "--expt", "run", "--save_path", str(folder))


def same_bytes(one, two) -> bool:
    """Do two runs have the same accuracies and weights?"""
    found = []
    for folder in (one / "run-seed5", two / "run-seed5"):
        weights = [read_tensors(path)["state_dict"] for path in sorted(folder.glob("round_*.pt"))]
        with open(folder / "results.csv") as file:
            found.append(([row["test_accuracy"] for row in csv.DictReader(file)], weights))
    (rows, weights), (again, same) = found
    assert len(rows) == len(weights) > 0
    pairs = zip(weights, same, strict=True)
    return rows == again and all(torch.equal(ours[name], theirs[name]) for ours, theirs in pairs for name in ours)


@pytest.mark.parametrize("compile", ["off", "graph"])
@pytest.mark.parametrize("case", RUNS)
def test_a_seed_gives_the_same_bytes_twice(case, compile, tmp_path):
    for name in ("one", "two"):
        run_in(tmp_path / name, case, "--compile", compile)
    assert same_bytes(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("case", RUNS)
def test_a_killed_run_ends_with_the_bytes_of_a_whole_one(case, amp, tmp_path, monkeypatch):
    """Its first updates are plain where the whole run's were replayed, and vice versa."""
    words = ["--compile", "graph", "--amp", amp]
    run_in(tmp_path / "whole", case, *words)
    train_epoch = Session.train_epoch

    def killed(session, bar):
        if session.epoch == 2:
            raise KeyboardInterrupt
        train_epoch(session, bar)

    with monkeypatch.context() as killing, pytest.raises(KeyboardInterrupt):
        killing.setattr(Session, "train_epoch", killed)
        run_in(tmp_path / "killed", case, *words)
    gc.collect()  # the run's lock is released with it
    run_in(tmp_path / "killed", case, *words)
    assert same_bytes(tmp_path / "whole", tmp_path / "killed")


def test_trainings_one_after_the_other_take_no_more_memory():
    """Regression: each had its own stream, whose cuBLAS workspace older torch never frees."""
    taken = []
    for _ in range(3):
        losses_of("AlexNet", "EnCoDe", "--device", "cuda", "--compile", "graph", each=5)
        gc.collect()
        taken.append(torch.cuda.memory_allocated())
    assert taken[1] == taken[2]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU here")
@pytest.mark.parametrize("compile", ["off", "graph"])
def test_another_gpu_is_used_alone(compile):
    """If both are of one kind, losses equal the first one's; the first one's memory does not change."""
    words = ["--compile", compile, "--amp", "bf16"]
    first = losses_of("AlexNet", "EnCoDe", "--device", "cuda:0", *words, each=5)
    before = torch.cuda.memory_reserved(0)
    second = losses_of("AlexNet", "EnCoDe", "--device", "cuda:1", *words, each=5)
    assert torch.cuda.memory_reserved(0) <= before and torch.cuda.max_memory_allocated(1) > 0
    if torch.cuda.get_device_name(0) == torch.cuda.get_device_name(1):
        assert first == second
