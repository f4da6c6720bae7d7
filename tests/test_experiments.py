"""All 24 main.py: each runs from its folder with the paper's defaults, and contains only what is specific to it."""

import ast
import csv
import itertools
import shutil

import pytest
import torch

from common import cli, networks, training
from common.distillation import Targets
from common.evaluation import Fitted
from common.networks import PAIRS
from common.teachers import Teacher

from .conftest import BUDGET, DATASETS, METHODS, MODELS, ROOT, TOY, run, script
from .launcher import launch

EXPERIMENTS = list(itertools.product(MODELS, DATASETS, METHODS))
# train_epochs, batch_size, lr_task: shared/paper/hyperparameters.csv; ResNet's are this project's (README). All share
# one seed, where the authors' scripts have two.
DEFAULTS = {
    "AlexNet/CIFAR10/Single": (100, 128, 0.001),
    "AlexNet/CIFAR10/Random": (120, 128, 0.001),
    "AlexNet/CIFAR10/KD": (120, 128, 0.001),
    "AlexNet/CIFAR10/EnCoDe": (100, 64, 0.01),
    "AlexNet/SVHN/Single": (100, 128, 0.01),
    "AlexNet/SVHN/Random": (120, 128, 0.01),
    "AlexNet/SVHN/KD": (200, 128, 0.01),
    "AlexNet/SVHN/EnCoDe": (100, 64, 0.01),
    "VGG/CIFAR10/Single": (120, 128, 0.01),
    "VGG/CIFAR10/Random": (150, 128, 0.01),
    "VGG/CIFAR10/KD": (120, 128, 0.01),
    "VGG/CIFAR10/EnCoDe": (100, 64, 0.01),
    "VGG/SVHN/Single": (120, 128, 0.01),
    "VGG/SVHN/Random": (120, 128, 0.01),
    "VGG/SVHN/KD": (120, 128, 0.01),
    "VGG/SVHN/EnCoDe": (100, 64, 0.01),
    "ResNet/CIFAR10/Single": (120, 128, 0.1),
    "ResNet/CIFAR10/Random": (120, 128, 0.1),
    "ResNet/CIFAR10/KD": (120, 128, 0.1),
    "ResNet/CIFAR10/EnCoDe": (120, 128, 0.1),
    "ResNet/SVHN/Single": (120, 128, 0.1),
    "ResNet/SVHN/Random": (120, 128, 0.1),
    "ResNet/SVHN/KD": (120, 128, 0.1),
    "ResNet/SVHN/EnCoDe": (120, 128, 0.1),
}
FEATURE_WEIGHT = {"AlexNet": 500, "VGG": 500, "ResNet": 10}
STUDENTS = {"AlexNet": 600_714, "VGG": 1_634_858, "ResNet": 78_042}


@pytest.mark.parametrize(("model", "dataset", "method"), EXPERIMENTS)
def test_defaults(model, dataset, method):
    module = script(method, model, dataset)
    args = cli.parse(module.__doc__, module.DEFAULTS, [])
    epochs, batch_size, lr_task = DEFAULTS[f"{model}/{dataset}/{method}"]
    expected = {"model": model, "method": method, "dataset": dataset.lower(), "image_size": PAIRS[model].IMAGE_SIZE}
    expected |= {"train_epochs": epochs, "batch_size": batch_size, "lr_task": lr_task, "seed": 2023}
    expected |= {"num_images": 50000, "num_val": 5000, "flip": "auto", "take": "drawn", "schedule": "step"}
    if method != "Single":
        expected |= {"initial_budget": 5000, "budget": 5000, "subset": 10000}
    if method in ("KD", "EnCoDe"):
        expected |= {"lr_dec": 0.01, "feat_wt": FEATURE_WEIGHT[model], "logit_wt": 0.00005}
    if method == "EnCoDe":
        expected |= {"lr_disc": 0.001, "warmup_epochs": 10, "sampler": "vae", "sampler_input": "features"}
        shown = {"adv_wt": 0.01, "beta": 1.0, "latent_dim": 32, "lr_vae": 0.0005, "distill_on": "labeled"}
        shown |= {"logit_loss": "mse"}
        expected |= shown
        assert module.DEFAULTS.keys() >= shown.keys()  # every hyperparameter of the method is in main.py
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(("model", "dataset", "method"), EXPERIMENTS)
def test_the_script_runs_from_its_folder(model, dataset, method, tmp_path, teachers):
    """Two rounds on digits, as a user starts them; 80 images where the AlexNet pair's own tests take 200."""
    words = [*TOY, "--num_images", "80", "--num_val", "20", "--batch_size", "20", "--save_path", str(tmp_path)]
    if method != "Single":
        words += ["--initial_budget", "20", "--budget", "20", "--subset", "30", "--rounds", "2"]
    if method in ("KD", "EnCoDe"):
        words += ["--teacher", str(teachers(model))]
    if method == "EnCoDe":
        words += ["--warmup_epochs", "1"]
    done = launch(method, *words, "--dataset", "digits", folder=ROOT / model / dataset)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / f"{method.lower()}-seed5"
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["labeled"] for row in rows] == (["60"] if method == "Single" else ["20", "40"])
    assert {(row["model"], row["method"], row["network"]) for row in rows} == {(model, method, "student")}
    assert {bool(row["teacher_accuracy"]) for row in rows} == {method in ("KD", "EnCoDe")}
    weights = torch.load(folder / "round_00.pt", weights_only=True)["state_dict"]
    learned = [tensor for name, tensor in weights.items() if "running" not in name and "tracked" not in name]
    assert sum(tensor.numel() for tensor in learned) == STUDENTS[model]


def _what_is_theirs(path) -> tuple[str, dict, ast.Module]:
    """A main.py taken apart: docstring, DEFAULTS, and the rest."""
    tree = ast.parse(path.read_text())
    is_defaults = [isinstance(node, ast.Assign) and node.targets[0].id == "DEFAULTS" for node in tree.body]
    assert is_defaults.count(True) == 1, "one dict of defaults"
    defaults = ast.literal_eval(tree.body[is_defaults.index(True)].value)
    rest = [node for node, skip in zip(tree.body[1:], is_defaults[1:], strict=True) if not skip]
    return ast.get_docstring(tree), defaults, ast.Module(rest, [])


@pytest.mark.parametrize("method", METHODS)
def test_the_scripts_of_a_method_differ_in_docstring_and_defaults_alone(method):
    parts = {
        (model, dataset): _what_is_theirs(ROOT / model / dataset / method / "main.py")
        for model in MODELS
        for dataset in DATASETS
    }
    assert len({ast.dump(rest) for _, _, rest in parts.values()}) == 1
    for (model, dataset), (doc, defaults, _) in parts.items():
        assert (defaults["model"], defaults["method"]) == (model, method)
        assert defaults.get("dataset", "cifar10") == dataset.lower()
        assert {"CIFAR10": "CIFAR-10", "SVHN": "SVHN"}[dataset] in doc and "python main.py" in doc


def test_every_folder_of_the_grid_holds_a_script():
    found = {tuple(path.relative_to(ROOT).parts[:3]) for path in ROOT.glob("*/*/*/main.py")}
    assert found >= set(EXPERIMENTS)  # a user's own pair has folders too


@pytest.mark.parametrize("method", ["Random", "KD", "EnCoDe"])
def test_student_and_decoder_of_each_round_have_first_weights_of_their_own(method, monkeypatch, tmp_path):
    made, build = [], networks.build
    targets = Targets(torch.nn.Identity(), None, torch.zeros(1, 200, 10))

    def watched(args, part, number=0):
        made.append((part, number))
        return build(args, part, number)

    monkeypatch.setattr(networks, "build", watched)
    monkeypatch.setattr(training, "fit", lambda *_: Fitted(1, 50.0, 1.0, 1))
    monkeypatch.setattr(Teacher, "targets", lambda *_: targets)
    run(method, *TOY, *BUDGET, "--rounds", "2", "--save_path", str(tmp_path))
    parts = ["student"] if method == "Random" else ["student", "decoder"]
    assert made == [(part, number) for number in (0, 1) for part in parts]


TINY = """
from torch import nn
from common.networks.decoder import decoder as build_decoder
from common.networks.split import SequentialNet

IMAGE_SIZE = 16


def net(width, num_classes):
    features = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4))
    return SequentialNet(features, 2, [nn.Linear(4 * width, num_classes)])


def teacher(num_classes):
    return net(12, num_classes)


def student(num_classes):
    return net(3, num_classes)


def decoder():
    return build_decoder(3, 6, 12, pool=2)
"""


def test_a_fourth_network_is_one_file_one_line_and_its_folders(tmp_path):
    """README's recipe for a new pair, followed literally in a copy of the repository."""
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "common" / "networks" / "tiny.py").write_text(TINY)
    registry = tmp_path / "common" / "networks" / "__init__.py"
    line = '    "AlexNet": import_module("common.networks.alexnet"),\n'
    text = registry.read_text()
    assert line in text
    registry.write_text(text.replace(line, line + '    "Tiny": import_module("common.networks.tiny"),\n'))
    shutil.copytree(ROOT / "AlexNet" / "CIFAR10", tmp_path / "Tiny" / "CIFAR10")
    for path in tmp_path.glob("Tiny/*/*/main.py"):
        path.write_text(path.read_text().replace('"model": "AlexNet"', '"model": "Tiny"'))
    for method in METHODS:
        words = [*TOY, "--save_path", str(tmp_path / "runs"), *(BUDGET if method != "Single" else [])]
        if method in ("Single", "Random"):
            words += ["--fold_bn"]
        done = launch(method, *words, folder=tmp_path / "Tiny" / "CIFAR10", fresh=True)
        assert done.returncode == 0, done.stderr
        row = (tmp_path / "runs" / f"{method.lower()}-seed5" / "results.csv").read_text().splitlines()[1]
        assert row.startswith(f"Tiny,digits,{method},student")
    assert (tmp_path / "runs" / "teachers" / "Tiny-digits-16px.pt").exists()
