"""What the tests share: toy arguments, images in memory, the scripts as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import budget, cli, data, experiments, machine, runs  # noqa: E402 - the repository is not installed
from common.networks import PAIRS  # noqa: E402

MODELS = ("AlexNet", "VGG", "ResNet")
DATASETS = ("CIFAR10", "SVHN")
METHODS = experiments.METHODS
# What users read: the guides, and the measurements.
GUIDES = [ROOT / "README.md", *sorted((ROOT / "common").rglob("README.md")), ROOT / "benchmarks" / "README.md"]
MEASURED = [ROOT / "RESULTS.md", *sorted(ROOT.glob("results/*/README.md"))]
# 200 images of digits, 5 updates an epoch, always on the CPU, amp off for exactness.
TOY = "--dataset digits --num_images 200 --num_val 40 --batch_size 40 --train_epochs 2".split()  # noqa: SIM905
TOY += ["--device", "cpu", "--amp", "off", "--threads", "1", "--seed", "5"]
BUDGET = ["--initial_budget", "40", "--budget", "60", "--subset", "80"]


def script(method: str, model: str = "AlexNet", dataset: str = "CIFAR10"):
    """The module of one experiment's main.py."""
    return experiments.script(model, dataset, method)


def prepared(module, words):
    """A script's flags from these words, with the process set up for them."""
    args = cli.parse(module.__doc__, module.DEFAULTS, list(words))
    machine.prepare(args)
    return args


def parse(method: str, *words: str, model: str = "AlexNet"):
    """The arguments of a toy run of a method."""
    return prepared(script(method, model), [*TOY, *(BUDGET if method != "Single" else []), *words])


def run(method: str, *words: str, model: str = "AlexNet", dataset: str = "CIFAR10") -> None:
    """A script's main in this process, as `python main.py words` runs it."""
    module = script(method, model, dataset)
    module.main(prepared(module, words))


@pytest.fixture(autouse=True)
def same_draws():
    """A test that draws weights or inputs without a generator draws the same ones each time, in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    """A toy teacher for digits, made by `Single --network teacher` as a user makes it."""
    save_path = tmp_path_factory.mktemp("teacher")
    words = "--network teacher --train_epochs 1 --fold_bn --schedule onecycle --lr_task 0.02"
    run("Single", *TOY, *words.split(), "--save_path", str(save_path))
    return save_path / "teachers" / "AlexNet-digits-64px.pt"


@pytest.fixture(scope="session")
def teachers(tmp_path_factory):
    """A function that returns a model's toy teacher for digits: one update, made by `Single --network teacher`."""
    save_path = tmp_path_factory.mktemp("teachers")

    def of(model: str) -> Path:
        path = save_path / "teachers" / f"{model}-digits-{PAIRS[model].IMAGE_SIZE}px.pt"
        if not path.exists():
            words = "--num_images 48 --num_val 8 --network teacher --train_epochs 1 --lr_task 0.01".split()  # noqa: SIM905
            run("Single", *TOY, *words, "--expt", model, "--save_path", str(save_path), model=model)
        return path

    return of


@pytest.fixture
def images():
    """Digits at 64x64: 200 images, 40 of them validation."""
    return data.load(parse("Single"))


@pytest.fixture
def first_round(tmp_path):
    """A function that returns arguments, run, images and the first round of a fresh run of a method."""

    def make(method: str, *words: str):
        args = parse(method, "--save_path", str(tmp_path), *words)
        loaded = data.load(args)
        begun = runs.begin(args, loaded)
        return args, begun, loaded, next(budget.rounds(args, begun, loaded))

    return make


@pytest.fixture
def random_images():
    """8 random colour images at 64x64 with a mirror view, standing in for CIFAR-10's."""
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8, generator=source)
    return SimpleNamespace(
        train=pixels, classes=list("abcdefghij"), mirror=True, device=pixels.device, size=64, fingerprint="f" * 64
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
