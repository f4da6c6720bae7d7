"""On a real GPU, where there is one: what `test_device` cannot see without it."""

import csv
import itertools
from types import SimpleNamespace

import pytest
import torch

from common import data, folding, networks, plan, samplers
from common.fast import graphs
from common.files import read_tensors
from common.training import Session

from .conftest import BUDGET, MODELS, TOY, parse, run
from .toys import METHODS, Quiet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
CASES = {
    **{method: (method, "student", []) for method in METHODS},
    "teacher": ("Random", "teacher", []),  # AlexNet's draws dropout
    "VAE of images": ("EnCoDe", "student", ["--sampler_input", "images"]),
    "discriminator": ("EnCoDe", "student", ["--sampler", "discriminator"]),
    "batch norm": ("KD", "student", ["--fold_bn"]),
    "mixup": ("KD", "student", ["--mixup", "1", "--shift", "3", "--targets", "mean", "--views", "2", "--feat_wt", "0"]),
}


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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_the_losses_are_a_cpus_but_for_rounding(model, method):
    ours, theirs = losses_of(model, method, "--device", "cuda"), losses_of(model, method)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4, abs=1e-5)
    for gpu, cpu in zip(ours[1:], theirs[1:], strict=True):  # batch norm over few images makes more of rounding
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


@pytest.mark.parametrize("compile", ["off", "graph"])
@pytest.mark.parametrize("method", ["Single", "Random", "KD", "EnCoDe", "fair"])
def test_a_seed_gives_the_same_bytes_twice(method, compile, tmp_path):
    words = [*TOY, "--device", "cuda", "--compile", compile, "--train_epochs", "3"]
    words += [] if method == "Single" else BUDGET
    words += ["--teacher_epochs", "1"] if method in ("KD", "EnCoDe", "fair") else []
    words += ["--recipe", "fair"] if method == "fair" else []
    words += ["--warmup_epochs", "1"] if method == "EnCoDe" else []
    found = []
    for name in ("one", "two"):
        run("KD" if method == "fair" else method, *words, "--expt", "run", "--save_path", str(tmp_path / name))
        folder = tmp_path / name / "run-seed5"
        weights = [read_tensors(path)["state_dict"] for path in sorted(folder.glob("round_*.pt"))]
        with open(folder / "results.csv") as file:
            rows = [row["test_accuracy"] for row in csv.DictReader(file)]
        found.append((rows, weights))
    (rows, weights), (again, same) = found
    assert rows == again and len(rows) == len(weights) > 0
    for ours, theirs in zip(weights, same, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
