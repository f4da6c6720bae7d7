"""Every experiment's real code on a fake device (`fake_device`), and the faults that this must find."""

import csv
import os
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from common import (
    augment,
    budget,
    data,
    distillation,
    evaluation,
    machine,
    networks,
    objective,
    runs,
    samplers,
    teachers,
    training,
)
from common.losses import FEATURE_LOSSES, LOGIT_LOSSES, WITH_LABELS
from common.samplers import Sampler, nets, vaal

from . import fake_device
from .conftest import MODELS, prepared, script
from .fake_device import DEVICE, Fault

SIZES = {"AlexNet": "64", "VGG": "64", "ResNet": "16"}  # half of ResNet's own, which is slow
# Two updates an epoch: the first may fill caches, in the second nothing waits.
WORDS = "--num_images 16 --num_val 4 --num_classes 2 --batch_size 8 --train_epochs 1 --seed 5 --amp off --threads 1"
BUDGET = "--initial_budget 4 --budget 4 --subset 6 --rounds 2"
FAIR = "--recipe fair --views 2 --teacher_epochs 1 --teacher_batch_size 2 --teacher_lr 0.001"
METHODS = {
    "Single": "",
    "Single teacher": "--network teacher --shift 3 --cutout 8 --label_smoothing 0.05",
    "Single fold_bn": "--fold_bn",
    "Single teacher fold_bn": "--network teacher --fold_bn --shift 3 --nesterov --schedule onecycle",
    "Random": "",
    "Random teacher": "--network teacher",
    "KD": "",
    "KD fold_bn": "--fold_bn",
    "KD pool": "--distill_on pool --logit_loss kl --logit_wt 1",
    "KD fair": FAIR,
    "KD fair view": f"{FAIR} --targets view --mixup 1",
    "KD fair self_training": f"{FAIR} --teacher_pool self_training --teacher_pool_epochs 1",
    "KD fair fixmatch": f"{FAIR} --teacher_pool fixmatch --teacher_pool_epochs 1",
    "KD fair before": f"{FAIR} --teacher_start before --teacher_more_epochs 1",
    "EnCoDe fair": f"{FAIR} --warmup_epochs 0",
    "EnCoDe vae": "--warmup_epochs 0",
    "EnCoDe fold_bn": "--warmup_epochs 0 --fold_bn",
    "EnCoDe discriminator": "--warmup_epochs 0 --sampler discriminator",
    "EnCoDe images": "--warmup_epochs 0 --sampler_input images",
    "EnCoDe random": "--sampler random",
    "EnCoDe entropy": "--sampler entropy",
    "EnCoDe teacher_confidence": "--sampler teacher_confidence",
}
COUNTED = [case for case in METHODS if "fair" in case]  # a teacher for each round: tested over whole runs
CASES = [(model, case) for model in MODELS for case in METHODS if model != "ResNet" or "fold_bn" not in case]
CASES = [(model, case) for model, case in CASES if case not in COUNTED]


class FirstRound(Exception):
    """The first round is over, its query made."""


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Fewer units in the teachers' hidden layers of 4096 and the image VAE's of 1024; nothing waits for the disk."""

    def narrowed(make, num_classes: int):
        with torch.device("meta"):
            net = make(num_classes=num_classes)
        for layer in net.features:
            if isinstance(layer, nn.Conv2d):
                layer.to_empty(device="cpu").reset_parameters()
        for number, layer in enumerate(net.classifier):
            if isinstance(layer, nn.Linear):
                sizes = (16 if size == 4096 else size for size in (layer.in_features, layer.out_features))
                net.classifier[number] = nn.Linear(*sizes)
        return net

    for name in ("alexnet", "vgg11"):
        monkeypatch.setattr(models, name, partial(narrowed, getattr(models, name)))
    monkeypatch.setattr(vaal, "image_vae", partial(nets.image_vae, widths=(4, 8, 8, 8)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def device(monkeypatch):
    return fake_device.install(monkeypatch)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """16 training images of two classes and 4 test images."""
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(20) % 2
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(path, x_train=pixels[:16], y_train=labels[:16], x_test=pixels[16:], y_test=labels[16:])
    return path


@pytest.fixture
def arguments(npz, tmp_path):
    """A function that returns main.py's module and its flags for a case, as on a machine with the fake device."""

    def make(model: str, case: str, *words: str, where: torch.device = DEVICE):
        method = case.split()[0]
        module = script(method, model)
        budgets = BUDGET.split() if method != "Single" else []
        words = [*WORDS.split(), *budgets, *METHODS[case].split(), *words]
        words += ["--dataset", str(npz), "--image_size", SIZES[model], "--save_path", str(tmp_path / where.type)]
        args = prepared(module, [*words, "--device", "cpu"])
        args.device = str(where)
        return module, args

    return make


@pytest.fixture
def teacher(tmp_path, narrow):
    """A function that writes a teacher with fresh weights: what KD and EnCoDe take with --teacher."""

    def make(model: str, args) -> str:
        with patch.object(args, "device", "cpu"):
            net = networks.build(args, "teacher")
        runs.save_weights(tmp_path / "teacher.pt", net)
        return str(tmp_path / "teacher.pt")

    return make


@pytest.fixture(scope="module")
def outputs():
    """Each pair's teacher outputs on the device, cached once made."""
    return {}


@pytest.fixture
def first_round(monkeypatch, device, arguments, outputs):
    """A function that runs main.py on the fake device up to its first query, with a teacher of fresh weights."""

    def targets(teacher: teachers.Teacher, this_round) -> distillation.Targets:
        args, images = teacher.args, teacher.images
        if args.model not in outputs:
            net = networks.build(args, "teacher")
            outputs[args.model] = net.pool, *distillation.compute(net, images, batch_size=8)
        return distillation.Targets(*outputs[args.model])

    def over(run: runs.Run) -> None:
        raise FirstRound

    def run(model: str, case: str, *words: str) -> None:
        module, args = arguments(model, case, *words)
        with device, pytest.raises(FirstRound):
            module.main(args)

    monkeypatch.setattr(teachers.Teacher, "targets", targets)
    monkeypatch.setattr(runs.Run, "save", lambda run: None)
    monkeypatch.setattr(runs.Run, "commit_round", over)
    return run


@pytest.mark.parametrize(("model", "case"), CASES)
def test_a_round_runs_on_the_device(model, case, first_round):
    """Training, validation, test and query; of two updates, the second must not wait."""
    first_round(model, case)


@pytest.mark.parametrize(
    ("name", "labels"),
    [*((name, None) for name in [*LOGIT_LOSSES, *FEATURE_LOSSES]), *((name, [0, 4, 1, 1]) for name in WITH_LABELS)],
)
def test_each_loss_and_its_gradient_run_on_the_device_without_waiting(name, labels, device):
    """Regression: slam used cumsum, which has no deterministic form on CUDA."""
    shape = (4, 5) if name in LOGIT_LOSSES else (4, 3, 2, 2)
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).unbind()
    loss = (LOGIT_LOSSES | FEATURE_LOSSES)[name]
    args = SimpleNamespace(temperature=4.0, fast="auto")
    found = []
    for where in (torch.device("cpu"), DEVICE):
        with device:
            here = student.detach().to(where).requires_grad_()
            there = teacher.to(where)
            y = [] if labels is None else [torch.tensor(labels).to(where)]
            with device.no_waiting():
                value = loss(here, there, args, *y)
                value.backward()
            found.append((value.cpu().item(), here.grad.cpu().tolist()))
    assert found[0] == found[1]


def rows(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("model", MODELS)
def test_a_missing_teacher_is_trained_folded_and_asked_on_the_device(model, device, arguments, tmp_path):
    """The next run finds its weights and its outputs, in the CPU's format."""
    words = ["--teacher_epochs", "1", "--teacher_batch_size", "8", "--teacher_lr", "0.001"]
    for expt in ("kd", "again"):
        module, args = arguments(model, "KD", *words, "--expt", expt, "--rounds", "1")
        with device:
            module.main(args)
    folder = tmp_path / DEVICE.type
    weights = torch.load(next(folder.glob(f"teachers/{model}-*px.pt")), weights_only=True)["state_dict"]
    outputs = torch.load(next(folder.glob("teachers/outputs-*.pt")), weights_only=True)
    assert {type(tensor) for tensor in (*weights.values(), outputs["maps"])} == {torch.Tensor}
    assert rows(folder / "kd-seed5" / "results.csv") == rows(folder / "again-seed5" / "results.csv")


TABLES = ("results.csv", "queries.csv", "history.csv")


@pytest.mark.parametrize("case", ["EnCoDe vae", "EnCoDe images", "KD pool", *COUNTED])
def test_a_seed_gives_the_same_run_as_on_the_cpu(case, device, arguments, teacher, tmp_path, monkeypatch):
    """Batches, noise and candidates, and so queries and results: kernels are the CPU's here; draws must be as well."""
    if case in COUNTED:  # a teacher's dropout is the only draw made on the training device
        monkeypatch.setattr(nn.functional, "dropout", lambda inputs, *rest: inputs)
    found = []
    for where in (torch.device("cpu"), DEVICE):
        module, args = arguments("AlexNet", case, where=where)
        if "teacher" in args and case not in COUNTED:
            args.teacher = teacher("AlexNet", args)
        with device:
            module.main(args)
        folder = tmp_path / where.type / f"{args.expt}-seed5"
        found.append([(folder / name).read_bytes() for name in TABLES])
    assert found[0] == found[1]
    assert [row["round"] for row in rows(folder / "queries.csv")] == ["0"] * 4 + ["1"] * 4


class Killed(Exception):
    """In the middle of an epoch."""


def test_a_killed_run_goes_on_on_the_device(monkeypatch, device, arguments, teacher, tmp_path):
    """Networks, momentum and the best weights come back from the CPU; the run ends with the bytes of a whole one."""
    words = ["--train_epochs", "2", "--rounds", "1", "--expt"]
    module, args = arguments("AlexNet", "EnCoDe vae", *words, "whole")
    args.teacher = teacher("AlexNet", args)
    _, killed = arguments("AlexNet", "EnCoDe vae", *words, "killed", "--teacher", args.teacher)
    step, sessions = training.Session.step, []

    def dying(session: training.Session, batch: training.Batch):
        sessions.append(session)
        if len(sessions) == 4:  # the second epoch's second update
            raise Killed
        return step(session, batch)

    with device:
        module.main(args)
        with monkeypatch.context() as killing, pytest.raises(Killed):
            killing.setattr(training.Session, "step", dying)
            module.main(killed)
        sessions[0].run.close()
        module.main(killed)
    whole, resumed = (tmp_path / DEVICE.type / f"{expt}-seed5" for expt in ("whole", "killed"))
    assert [(whole / name).read_bytes() for name in TABLES] == [(resumed / name).read_bytes() for name in TABLES]
    assert "going on at round 1" in (resumed / "log.txt").read_text()


def seen(arguments, where: torch.device):
    """Arguments, run, images and first round of EnCoDe, with a student and a sampler that learns."""
    _, args = arguments("AlexNet", "EnCoDe vae", where=where)
    images = data.load(args)
    run = runs.begin(args, images)
    this_round = next(budget.rounds(args, run, images))
    return args, run, this_round, networks.build(args, "student")


class Recording(Sampler):
    """Records the candidates and queries the last of them."""

    def score(self, index):
        self.candidates = index
        return torch.arange(len(index), device=index.device).float()


def test_a_seed_draws_the_same_batches_noise_and_candidates_on_any_device(device, arguments):
    drawn = []
    for where in (torch.device("cpu"), DEVICE):
        with device:
            args, run, this_round, student = seen(arguments, where)
            sampler = vaal.VAAL(args, this_round, student, None)
            session = training.Session(args, run, this_round, student, sampler=sampler)
            args.shift = 2
            batches = list(session.batches())
            asked = Recording(args, this_round, student, None)
            run.add("timing", round=0)  # as evaluation did before
            this_round.query(asked)
            parts = [*batches[1].labeled[:3], *batches[1].unlabeled[:2], batches[0].noise, batches[1].noise]
            parts += [this_round.labeled, this_round.unlabeled, asked.candidates, run.state["labeled"]]
            assert {part.device.type for part in parts[:-1]} == {where.type} and parts[-1].device.type == "cpu"
            drawn.append([part.cpu().tolist() for part in parts])
            run.close()
    assert drawn[0] == drawn[1]
    assert batches[0].noise.shape == (vaal.VAE_STEPS, 2 * 8, 32) and len(drawn[0][-2]) == 6


def test_evaluation_waits_once_and_a_query_never(device, arguments):
    with device:
        args, run, this_round, student = seen(arguments, DEVICE)
        for waits in (2, 1):  # the first one in a process also moves the pool's matrix, which is then kept
            before = device.waits
            evaluation.accuracy(student, this_round.images.test, this_round.images.test_labels, batch_size=2)
            assert device.waits <= before + waits
        for name in ("entropy", "vae", "discriminator"):
            args.sampler = name
            sampler = samplers.build(args, this_round, student)
            with device.no_waiting():
                sampler.query(3, this_round.unlabeled)
        run.close()


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_strategy_queries_the_same_images_on_any_device(name, device, arguments):
    kind, found = samplers.SAMPLERS[name], []
    for where in (torch.device("cpu"), DEVICE):
        with device:
            args, run, this_round, student = seen(arguments, where)
            net = networks.build(args, "teacher").eval()
            targets = distillation.Targets(net.pool, *distillation.compute(net, this_round.images, 8), net=net)
            args.sampler, args.query_by = name, "teacher" if kind.needs_dropout else "student"
            chosen, _ = samplers.build(args, this_round, student, targets).query(3, this_round.unlabeled)
            assert chosen.device.type == where.type
            found.append(chosen.tolist())
            run.close()
    assert found[0] == found[1] and len(set(found[0])) == 3


@pytest.mark.parametrize("keep", ["best", "ema"])
def test_an_epoch_of_twice_the_updates_waits_no_more_often(keep, device, arguments):
    """Losses are read every READ_EVERY updates and at the epoch's end, batches and noise moved at its start."""
    waits = []
    with device:
        for batch_size in (4, 2):
            args, run, this_round, student = seen(arguments, DEVICE)
            args.batch_size, args.keep = batch_size, keep
            sampler = samplers.build(args, this_round, student)
            session = training.Session(args, run, this_round, student, sampler=sampler)
            with run.bar(1, 0, "") as bar:
                session.train_epoch(bar)  # fills caches
                before = device.waits
                session.train_epoch(bar)
            waits.append(device.waits - before)
            run.close()
    assert waits[0] == waits[1]


# What the fake device must find: each fault is planted in the real code, where it could be made


def shifts_on_the_cpu(monkeypatch):
    """`device=images.device` forgotten in augment."""
    moved, arange = augment._moved, torch.arange

    def planted(images, offsets):
        with patch.object(torch, "arange", lambda count, device: arange(count)):
            return moved(images, offsets)

    monkeypatch.setattr(augment, "_moved", planted)


def logits_on_the_cpu(monkeypatch):
    """The cached logits are not moved."""
    made = distillation.Targets
    monkeypatch.setattr(distillation, "Targets", lambda pool, z, logits: made(pool, z, logits.cpu()))


def cpu_generator_on_the_device(monkeypatch):
    """The noise drawn on the device with the CPU's generator."""
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: randn(*shape, generator=generator, device=DEVICE))


def draws_of_the_device(monkeypatch):
    """The noise drawn on the device with the GPU's generator: other numbers than the CPU's."""
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: randn(*shape, device=DEVICE))


def sampler_on_the_cpu(monkeypatch):
    """`network.to(device)` forgotten."""

    def planted(sampler, name, network, rate):
        sampler.networks[name] = network
        sampler.optimizers[name] = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
        return network

    monkeypatch.setattr(Sampler, "own", planted)


def noise_for_each_update(monkeypatch):
    """As in an earlier VAE.rebuild."""
    rebuild = nets.VAE.rebuild

    def planted(vae, mean, log_variance, epsilon):
        return rebuild(vae, mean, log_variance, torch.randn(mean.shape).to(mean.device, non_blocking=True))

    monkeypatch.setattr(nets.VAE, "rebuild", planted)


def losses_read_in_each_update(monkeypatch):
    task_loss = objective.task_loss

    def planted(*args):
        terms = task_loss(*args)
        assert all(term.item() == term.item() for term in terms.values())
        return terms

    monkeypatch.setattr(objective, "task_loss", planted)


def loss_tested_in_each_update(monkeypatch):
    cross_entropy = objective.cross_entropy

    def planted(*args):
        loss = cross_entropy(*args)
        return loss if loss > 0 else 0 * loss

    monkeypatch.setattr(objective, "cross_entropy", planted)


def masked_batch(monkeypatch):
    """A boolean mask: only the device knows how many elements remain."""
    cross_entropy = objective.cross_entropy
    monkeypatch.setattr(
        objective, "cross_entropy", lambda logits, y, smoothing: cross_entropy(logits[y >= 0], y[y >= 0], smoothing)
    )


FAULTS = [
    (shifts_on_the_cpu, "Single teacher", "sub gets tensors of the CPU and of the device, at common/augment.py"),
    (logits_on_the_cpu, "KD", "index_select gets tensors of the CPU and of the device, at common/distillation.py"),
    (cpu_generator_on_the_device, "EnCoDe vae", "randn draws on the device with a generator of the CPU, at common/str"),
    (draws_of_the_device, "EnCoDe vae", "randn draws on the device what a GPU draws, at common/streams.py"),
    (sampler_on_the_cpu, "EnCoDe vae", "addmm gets tensors of the CPU and of the device, at common/samplers/nets.py"),
    (sampler_on_the_cpu, "EnCoDe discriminator", "convolution gets tensors of the CPU and of the device"),
    (noise_for_each_update, "EnCoDe vae", "randn draws on the CPU within an update"),
    (losses_read_in_each_update, "KD", "_local_scalar_dense makes the host wait for the device"),
    (loss_tested_in_each_update, "Single", "_local_scalar_dense makes the host wait for the device"),
    (masked_batch, "Single", "index makes the host wait for the device"),
]


@pytest.mark.parametrize(("plant", "case", "message"), FAULTS, ids=[f"{plant.__name__}-{c}" for plant, c, _ in FAULTS])
def test_a_planted_fault_is_found(plant, case, message, monkeypatch, first_round):
    plant(monkeypatch)
    with pytest.raises(Fault) as caught:
        first_round("AlexNet", case)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("model", ["AlexNet", "VGG"])
def test_the_plain_average_pool_is_found(model, first_round):
    """With --fast off: its backward pass on CUDA adds atomically, in no fixed order."""
    with pytest.raises(Fault, match="_adaptive_avg_pool2d_backward has no deterministic form on CUDA"):
        first_round(model, "Single", "--fast", "off")


# Code that queries the GPU itself


@pytest.mark.parametrize(("number", "expected"), [(0, "off"), (1, "bf16")])
def test_amp_auto_asks_the_chosen_gpu(number, expected, monkeypatch):
    """A Turing and an Ampere in one machine; the first is torch's current device."""
    capabilities = [(7, 5), (8, 0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device=None: capabilities[torch.device(device or "cuda:0").index]
    )
    chosen = machine.device(str(number))
    assert chosen == torch.device("cuda", number) and machine.amp("auto", chosen) == expected


def test_what_is_called_float32_is_float32():
    """TF32 has 10 of float32's 23 bits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    prepared(script("Single"), ["--device", "cpu", "--threads", "1"])
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


def test_cublas_is_told_to_sum_in_a_fixed_order(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    prepared(script("Single"), ["--device", "cpu", "--threads", "1"])
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and torch.are_deterministic_algorithms_enabled()
