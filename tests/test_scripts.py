"""The scripts as a user sees them, on AlexNet's four: reruns, options, teachers, the plan."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from common import data, report
from common.errors import InputError
from common.teachers import store
from common.teachers.teacher import _split

from .conftest import BUDGET, METHODS, TOY, parse, run
from .launcher import launch


def rows_of(folder, name="results"):
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", ["Single", "EnCoDe"])  # all four run in test_experiments.py
def test_a_finished_run_says_so_and_changes_nothing(method, tmp_path, teacher):
    words = [*TOY, "--save_path", str(tmp_path)]
    if method != "Single":
        words += BUDGET
    if method in ("KD", "EnCoDe"):
        words += ["--teacher", str(teacher)]
    done = launch(method, *words, fresh=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / f"{method.lower()}-seed5"
    rows = rows_of(folder)
    assert [row["labeled"] for row in rows] == (["160"] if method == "Single" else ["40", "100", "160"])
    assert all(row["method"] == method and row["network"] == "student" and row["updates"] == "10" for row in rows)
    # The authors' EnCoDe trained the uncompressed network, and without its teacher.
    weights = torch.load(folder / "round_00.pt", weights_only=True)["state_dict"]
    assert sum(tensor.numel() for tensor in weights.values()) == 600_714
    assert all(bool(row["teacher_accuracy"]) == (method in ("KD", "EnCoDe")) for row in rows)
    again = launch(method, *words)
    assert again.returncode == 0 and rows_of(folder) == rows


def test_every_option_of_the_method_runs(tmp_path, teacher):
    """KL on the pool, the image VAE and the discriminator, a teacher per round; results say which it was."""
    common = [
        *TOY,
        *BUDGET,
        "--train_epochs",
        "1",
        "--warmup_epochs",
        "0",
        "--rounds",
        "2",
        "--save_path",
        str(tmp_path),
    ]
    few = ["--num_images", "16", "--num_val", "4", "--batch_size", "8", "--initial_budget", "4", "--budget", "4"]
    shared = [*common, "--teacher", str(teacher)]
    variants = {
        "pool": [*shared, "--distill_on", "pool", "--logit_loss", "kl", "--logit_wt", "1", "--seed", "6"],
        "vaal": [*shared, *few, "--sampler_input", "images"],
        "fdal": [*shared, "--sampler", "discriminator"],
        "sure": [*shared, "--sampler", "teacher_confidence"],
        "own": [*common, "--teacher_labels", "labeled", "--teacher_epochs", "1", "--teacher_batch_size", "40"],
    }
    for name, words in variants.items():
        run("EnCoDe", *words, "--expt", name)
        rows = rows_of(tmp_path / f"{name}-seed{6 if name == 'pool' else 5}")
        assert len(rows) == 2
    assert {row["sampler"] for row in rows_of(tmp_path / "fdal-seed5")} == {"discriminator"}
    assert {row["distill_on"] for row in rows_of(tmp_path / "pool-seed6")} == {"pool"}
    seen = torch.load(teacher, weights_only=True)["record"]["seen"].tolist()
    drawn = data.load(
        parse("EnCoDe", *common, "--seed", "6")
    )  # other images of the data set than the teacher's seed drew
    bought = rows_of(tmp_path / "pool-seed6", "queries")
    union = {int(row["index"]) for row in bought} | set(drawn.origin[drawn.val].tolist()) | set(seen)
    pool = rows_of(tmp_path / "pool-seed6")
    assert pool[-1]["labels_in_all"] == str(len(union)) and len(seen) == 200 < len(union)
    own = rows_of(tmp_path / "own-seed5")
    assert {row["teacher_labels"] for row in own} == {"labeled"}
    teachers = [torch.load(path, weights_only=True)["record"] for path in (tmp_path / "teachers").glob("*/round_00.pt")]
    assert sorted(record["labeled"] for record in teachers) == [40, 100]
    assert [row["labels_in_all"] for row in own] == ["80", "140"]  # with 40 that choose the best epoch


def test_a_missing_teacher_is_trained_first_and_shared(tmp_path):
    words = [
        *TOY,
        *BUDGET,
        "--rounds",
        "1",
        "--teacher_epochs",
        "1",
        "--teacher_batch_size",
        "40",
        "--save_path",
        str(tmp_path),
    ]
    first = launch("KD", *words)
    assert first.returncode == 0, first.stderr
    assert "training one first" in first.stdout
    second = launch("EnCoDe", *words)
    assert second.returncode == 0 and "training one first" not in second.stdout
    assert (
        rows_of(tmp_path / "kd-seed5")[0]["teacher_accuracy"]
        == rows_of(tmp_path / "encode-seed5")[0]["teacher_accuracy"]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed 5 --image_size 96", "was trained with image_size 64, this experiment has 96"),
        ("--teacher nowhere.pt", "nowhere.pt: no such file"),
    ],
)
def test_a_wrong_teacher_is_refused_by_name(words, message, tmp_path, teacher):
    words = ["--teacher", str(teacher), *words.split(), "--save_path", str(tmp_path)]
    done = launch("KD", *TOY, *BUDGET, *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_a_corrupt_teacher_is_refused(tmp_path, teacher):
    half = tmp_path / "half.pt"
    half.write_bytes(teacher.read_bytes()[:10_000])
    done = launch("KD", *TOY, *BUDGET, "--teacher", str(half), "--save_path", str(tmp_path))
    assert done.returncode == 2 and "half.pt: damaged" in done.stderr and done.stderr.count("\n") == 1


def test_a_bare_state_dict_is_a_teacher(tmp_path, teacher):
    """The authors' whole-network checkpoints have torchvision's names and no record."""
    bare = tmp_path / "bare.pt"
    weights = torch.load(teacher, weights_only=True)["state_dict"]
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, bare)
    run("KD", *TOY, *BUDGET, "--rounds", "1", "--teacher", str(bare), "--save_path", str(tmp_path))
    assert rows_of(tmp_path / "kd-seed5")[0]["teacher_accuracy"] == ""
    said = f"teacher {bare}: unknown% test accuracy, unknown labels; which images it was trained on is not recorded"
    log = (tmp_path / "kd-seed5" / "log.txt").read_text()
    assert said in log
    # compared with the labels that are there: this one was trained for one epoch
    assert (
        "% on this round's 40 labels is hardly better than guessing and has little to teach; was it trained with" in log
    )


def test_a_log_names_the_seed_of_a_teacher_with_another_validation_split(tmp_path, teacher):
    words = [*TOY, *BUDGET, "--rounds", "1", "--teacher", str(teacher), "--save_path", str(tmp_path)]
    for seed in ("5", "6"):
        run("KD", *words, "--seed", seed)
    own, other = ((tmp_path / f"kd-seed{seed}" / "log.txt").read_text() for seed in (5, 6))
    assert "its validation split" not in own
    assert "; its validation split is seed 5's, so it has seen some of this run's" in other


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"seed": None}, "; which images it was trained on is not recorded"),
        ({"num_val": 10}, "; its validation split is that of --num_val 10, so it has seen some of this run's"),
        ({"num_images": 90}, "; its validation split is that of --num_images 90, so it has seen some of this run's"),
        ({"take": "first"}, "; its validation split is that of --take first, so it has seen some of this run's"),
    ],
)
def test_a_teacher_of_another_split_of_the_same_seed_is_told(changed, said):
    args = parse("KD", "--num_images", "100", "--num_val", "20", "--batch_size", "20", "--seed", "5")
    trained = {"seed": 5, "num_images": 100, "take": "drawn", "num_val": 20} | changed
    assert trained.keys() <= set(store.KEPT.split())
    record = {"trained": trained}
    images = SimpleNamespace(available=200, val=torch.arange(20), origin=torch.arange(100, 200))
    assert _split(record, args, images) == said
    if trained["seed"] is None:  # from a run's round, which says whose labels it saw
        leak = "; it has seen some of this run's validation labels"
        for first, expected in ((119, leak), (120, "")):
            assert _split(record | {"seen": torch.arange(first, 130)}, args, images) == expected
    images.available = 100
    assert _split(record, args, images) == ("" if changed.get("take") == "first" else said)  # it is all
    args.val_labels = "bought"
    assert changed or "of --val_labels extra, so it has seen" in _split(record, args, images)


@pytest.mark.parametrize("text", [None, "no checkpoint"])
def test_a_plan_refuses_the_teacher_that_the_run_would_refuse(text, tmp_path):
    path = tmp_path / "teacher.pt"
    if text:
        path.write_text(text)
    words = ["KD", *TOY, *BUDGET, "--teacher", str(path), "--save_path", str(tmp_path / "runs")]
    messages = []
    for more in ([], ["--dry_run"]):
        with pytest.raises(InputError) as raised:
            run(*words, *more)
        messages.append(str(raised.value))
    assert str(path) in messages[0] and messages[0] == messages[1]


def test_a_student_as_the_teacher_is_refused_before_the_first_round(tmp_path, capsys):
    run("Random", *TOY, *BUDGET, "--rounds", "1", "--train_epochs", "1", "--save_path", str(tmp_path))
    student = tmp_path / "random-seed5" / "round_00.pt"
    words = ["KD", *TOY, *BUDGET, "--teacher", str(student), "--save_path", str(tmp_path)]
    capsys.readouterr()
    for more in ([], ["--dry_run"]):
        with pytest.raises(InputError, match="not the weights of AlexNet's teacher for 10 classes"):
            run(*words, *more)
    assert "round 1" not in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_dry_run_prints_the_plan_and_writes_nothing(method, tmp_path, capsys):
    words = [*TOY, "--save_path", str(tmp_path / "runs"), "--dry_run", *(BUDGET if method != "Single" else [])]
    run(method, *words)
    text = capsys.readouterr().out
    assert "200 training = 160 pool + 40 validation; 359 test; 64x64" in text
    assert "600,714 parameters, 1.36 M" in text and "57,044,810 parameters, 94.09 M" in text
    assert "5 an epoch x 2 epochs = 10 a round" in text and "time       about" in text
    if method != "Single":
        assert "round  2   100 labels (50%), then 60 queried" in text
    assert not (tmp_path / "runs").exists()


def test_with_every_image_labelled_encode_is_kd(tmp_path, teacher):
    """No pool is left for the sampler to learn from: the weights are the same, whatever the strategy."""
    words = [*TOY, *BUDGET, "--percents", "100", "--lr_task", "0.01", "--logit_loss", "kl", "--logit_wt", "1"]
    words += ["--teacher", str(teacher), "--save_path", str(tmp_path)]
    run("KD", *words)
    run("EnCoDe", *words)
    run("EnCoDe", *words, "--sampler", "teacher_confidence", "--expt", "sure")
    kd, *others = (
        torch.load(tmp_path / f"{expt}-seed5" / "round_00.pt", weights_only=True)["state_dict"]
        for expt in ("kd", "encode", "sure")
    )
    assert len(kd) == 8 and all(torch.equal(kd[name], other[name]) for other in others for name in kd)


@pytest.mark.parametrize("teacher_labels", ["labeled", "all"])
def test_a_run_without_validation_images(teacher_labels, tmp_path):
    """Its pool is every image, its teachers choose no epoch either, and what depends on validation is left blank."""
    words = [*TOY, *BUDGET, "--save_path", str(tmp_path), "--num_val", "0", "--keep", "last", "--rounds", "2"]
    words += ["--take", "first"]
    run("KD", *words, "--teacher_labels", teacher_labels, "--teacher_epochs", "1", "--train_epochs", "2")
    folder = tmp_path / "kd-seed5"
    for row in rows_of(folder):
        assert row["test_accuracy"] and row["best_epoch"] == "2"
        assert (row["val_accuracy"], row["agreement"]) == ("", "")
        assert row["labels_in_all"] == (row["labeled"] if teacher_labels == "labeled" else "200")
    log = (folder / "log.txt").read_text()
    assert " val" not in log and "nan" not in log
    assert "(at epoch 2), trained in" in log
    assert sum(json.loads((folder / "config.json").read_text())["pool"]["images"]) == 200
    for config in tmp_path.glob("teachers/*/config.json"):
        assert json.loads(config.read_text())["keep"] == "last"
    report.main([str(folder), "--output", str(tmp_path / "report"), "--no-inference", "--ablation"])
    assert not (tmp_path / "report" / "epochs.png").exists() and (tmp_path / "report" / "labels.png").exists()
    assert "nan" not in (tmp_path / "report" / "ablation.md").read_text()
