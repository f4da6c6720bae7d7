"""`--teacher FILE.npz`: another network's logits as the teacher, checked against the data set."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import data, distillation, export, logits, plan, predict, teachers
from common.datasets import digits
from common.datasets.source import Source
from common.errors import InputError
from common.samplers import SAMPLERS
from common.teachers import precomputed, store

from . import toys
from .conftest import BUDGET, ROOT, TOY, parse, run
from .test_strategies import build, random

ALONE = ["--feat_wt", "0", "--targets", "mean", "--logit_loss", "kl", "--logit_wt", "1"]
DIGITS = 1438  # training images


README = ROOT / "common" / "teachers" / "README.md"


def file(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def named(path: Path, *words: str):
    return parse("KD", *ALONE, "--teacher", str(path), *words)


@pytest.fixture
def ten():
    """The toy's 8 images, drawn from a data set of 10."""
    return dataclasses.replace(toys.images(), origin=torch.tensor([9, 0, 1, 2, 3, 4, 5, 7]), available=10)


def test_each_image_has_its_own_row_whatever_its_view(ten, tmp_path):
    """By its place in the data set, of which the run has a part in its own order."""
    train = np.arange(20.0).reshape(10, 2)
    test = np.array([[2.0, 0], [0, 2], [0, 2], [0, 2], [2, 0], [0, 2]])  # 0 1 1 1 0 1 for 0 1 0 1 0 1
    found, key = precomputed.load(named(file(tmp_path / "t.npz", train=train, test=test, seen=[3, 9])), ten)
    assert found.logits.dtype == torch.float32 and found.logits[0].tolist() == train[ten.origin].tolist()
    view = distillation.View(torch.tensor([0, 6]), torch.tensor([True, False]))
    assert found.of(view, features=False).logits.tolist() == [[18, 19], [10, 11]]
    assert found.accuracy == "83.33" and found.seen.tolist() == [3, 9] and found.views is None
    again = file(tmp_path / "again.npz", train=train.astype(np.float16))
    bare, halves = precomputed.load(named(again), ten)
    assert (bare.accuracy, bare.seen) == ("", None) and halves != key
    assert precomputed.load(named(file(again, train=train)), ten)[1] == halves
    other = train.copy()
    other[8, 0] += 1  # of an image that this run lacks: still another teacher
    known = precomputed.load(named(file(again, train=train, images_sha256=ten.order)), ten)
    assert known[1] == halves  # the same teacher
    for changed in ({"train": other}, {"test": 2 * test}, {"seen": [3]}, {"labels": [-1] * 10}):
        arrays = {"train": train, "test": test, "seen": [3, 9]} | changed
        assert precomputed.load(named(file(again, **arrays)), ten)[1] != key
    none = precomputed.load(named(file(again, train=train, seen=np.array([]))), ten)[0]
    assert none.seen.tolist() == [] and none.seen.dtype == torch.int64


RIGHT = np.zeros((10, 2))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"logits": RIGHT}, "no array train; it needs train"),
        ({"train": RIGHT[:8]}, r"`train` is float64 of shape \(8, 2\); floats of \(10, 2\) would fit"),
        ({"train": np.zeros((10, 3))}, r"`train` is float64 of shape \(10, 3\)"),
        ({"train": RIGHT[None]}, r"`train` is float64 of shape \(1, 10, 2\)"),
        ({"train": RIGHT.astype(int)}, "`train` is int64"),
        ({"train": RIGHT, "test": RIGHT}, r"`test` is float64 of shape \(10, 2\); floats of \(6, 2\) would fit"),
        ({"train": np.full((10, 2), np.nan)}, "`train` has values that are not finite"),
        ({"train": RIGHT + 1e39}, "`train` has values that are not finite"),  # in float32
        (
            {"train": np.full((10, 2), 0.5)},
            "`train` has probabilities; logits are wanted, or the probabilities' logarithms",
        ),
        ({"train": RIGHT, "test": np.eye(2)[[0, 1, 0, 1, 0, 1]]}, "`test` has probabilities"),
        ({"train": RIGHT, "labels": [0] * 8}, "`labels` must hold a whole number for each of 10 training images"),
        ({"train": RIGHT, "labels": [0.5] * 10}, "`labels` must hold a whole number"),
        (
            {"train": RIGHT, "labels": [1, 0, 1, 1, -1, 0, 5, 1, 5, 0]},
            "1 of 8 images have other labels there: the data set or",
        ),
        ({"train": RIGHT, "seen": [0, 10]}, "`seen` must hold places of training .*, from 0 to 9, each of them once"),
        ({"train": RIGHT, "seen": [0, 1] * 5}, "`seen` must hold places"),  # a mask
        ({"train": RIGHT, "images_sha256": "f" * 64}, "was written for other training images, or for another order"),
        ({"train": RIGHT, "seen": [-1, 3]}, "`seen` must hold places"),
        ({"train": RIGHT, "seen": [0.5]}, "`seen` must hold places"),
        ({"train": RIGHT, "seen": [[1, 2]]}, "`seen` must hold places"),
        ({"train": np.array([object()])}, "not a readable .npz file .Object arrays cannot be loaded"),
    ],
)
def test_a_file_that_does_not_fit_the_data_set_is_refused(arrays, said, ten, tmp_path):
    path = file(tmp_path / "t.npz", **arrays)
    with pytest.raises(InputError, match=f"--teacher {path}: {said}"):
        teachers.check(named(path), ten)


def test_a_file_that_is_none_is_refused(ten, tmp_path):
    path = file(tmp_path / "t.npz", train=RIGHT)
    args = named(path)
    for content in (b"", b"PK no archive", path.read_bytes()[:-30]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"--teacher {path}: not a readable .npz file"):
            teachers.check(args, ten)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        named(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "has an image's logits, whatever its view, and no features; add --feat_wt 0 --targets mean"),
        (["--feat_wt", "0"], "has an image's logits"),
        ([*ALONE, "--teacher_labels", "labeled"], "trains one for each round; add --teacher_labels all, or leave"),
        ([*ALONE, "--sampler", "badge", "--query_by", "teacher"], "--sampler badge needs more than the logits in"),
        ([*ALONE, "--sampler", "bald", "--query_by", "teacher"], "--sampler bald needs more than the logits in"),
    ],
)
def test_flags_that_need_more_than_logits_are_refused(words, said, tmp_path):
    path = file(tmp_path / "t.npz", train=RIGHT)
    with pytest.raises(InputError, match=said):
        parse("KD", "--teacher", str(path), *words)
    named(path, "--sampler", "margin", "--query_by", "teacher")
    named(path, "--sampler", "badge")  # queries by the student


@pytest.mark.parametrize("name", [name for name, kind in SAMPLERS.items() if kind.asks])
def test_a_strategy_says_whether_it_needs_features(name):
    kind = SAMPLERS[name]
    if kind.needs_dropout:
        return
    sampler, candidates = build(name, random(40, 6), "--query_by", "teacher", z=torch.empty(40, 0))
    sampler.targets.z = None
    if kind.uses_features:
        with pytest.raises(InputError, match=f"--sampler {name}: needs features, of which --teacher .* has none"):
            sampler.query(5, candidates)
    else:
        assert len(sampler.query(5, candidates)[0]) == 5


def rows(folder: Path, name: str) -> list[dict]:
    with open(folder / f"{name}.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_checkpoints_logits_teach_what_the_checkpoint_teaches(teacher, tmp_path):
    """The same bytes from its file, from its logits, and from these under a strategy that queries by them."""
    words = [*TOY, *BUDGET, *ALONE, "--views", "1", "--rounds", "2", "--sampler", "margin", "--query_by", "teacher"]
    words += ["--keep", "last", "--save_path", str(tmp_path)]
    run("KD", *words, "--teacher", str(teacher), "--expt", "net")
    args = parse("KD", "--num_images", str(DIGITS), "--views", "1")
    whole = data.load(args)
    net, record = store.load(args, whole, teacher)
    _, logits = distillation.compute(net, whole, views=distillation.fixed_views(args, whole), features=False)
    test = 2 * np.eye(10)[whole.test_labels]
    path = file(tmp_path / "t.npz", train=logits[0], test=test, seen=record["seen"])
    run("KD", *words, "--teacher", str(path), "--expt", "file")
    folders = [tmp_path / f"{name}-seed5" for name in ("net", "file")]
    for name in ("history", "queries"):
        assert rows(folders[1], name) == rows(folders[0], name) != []
    first, second = (rows(folder, "results") for folder in folders)
    assert {row.pop("teacher_accuracy") for row in second} == {"100.00"}
    assert [row.pop("teacher_accuracy") for row in first] == [record["test_accuracy"]] * 2
    records = [torch.load(folder / "round_00.pt", weights_only=True)["record"] for folder in folders]
    assert [export.has_teacher(each, 63) for each in records] == [True, False]
    assert not export.has_teacher(records[0], 62)
    assert first == second and first[0]["labels_in_all"] == str(len(record["seen"]))


def test_rows_in_another_order_are_mentioned(tmp_path, capsys):
    args = parse("Single", "--num_images", str(DIGITS))
    whole = data.load(args)
    right = np.zeros((DIGITS, 10))
    right[whole.origin, whole.labels] = 9
    words = [*TOY, *BUDGET, *ALONE, "--rounds", "1", "--train_epochs", "1", "--save_path", str(tmp_path)]
    note = (
        "on this round's 40 labels is hardly better than guessing and has little to teach; are the rows of `train` in"
    )
    for name, train in (("right", right), ("shuffled", np.random.default_rng(0).permutation(right))):
        run("KD", *words, "--teacher", str(file(tmp_path / f"{name}.npz", train=train)), "--expt", name)
        said = capsys.readouterr().out
        assert (note in said) == (name == "shuffled")
        assert f"teacher {tmp_path / name}.npz: unknown% test accuracy, unknown labels" in said


def test_a_run_keeps_the_file_that_it_began_with(first_round, tmp_path):
    path = file(tmp_path / "t.npz", train=np.eye(DIGITS, 10))
    args, run, images, this_round = first_round("KD", *ALONE, "--teacher", str(path))
    first = teachers.Teacher(args, run, images).targets(this_round)
    assert run.config["teacher_sha256"] == precomputed.load(args, images)[1]
    assert torch.equal(teachers.Teacher(args, run, images).targets(this_round).logits, first.logits)
    file(path, train=np.eye(DIGITS, 10) + 1)
    with pytest.raises(InputError, match=f"{path}: is not the teacher this run began with; restore it"):
        teachers.Teacher(args, run, images).targets(this_round)


def test_a_plan_counts_the_student_and_the_logits(tmp_path, capsys):
    path = file(tmp_path / "t.npz", train=np.zeros((DIGITS, 10)))
    args = named(path, "--num_images", str(DIGITS))
    plan.show(args, data.load(args))
    said = capsys.readouterr().out
    assert "student    " in said and "teacher    " not in said and f"teacher at {path} (there)" in said
    assert precomputed.size(args) == 57520 and "teacher's outputs 0 MB" in said
    small = named(path, "--num_images", str(DIGITS), "--image_size", "32")  # AlexNet's teacher needs 63 pixels
    plan.show(small, data.load(small))
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not a readable"):
        plan.show(args, data.load(args))


def test_a_network_that_sees_the_validation_labels_is_mentioned(first_round, tmp_path, capsys):
    args, run, images, this_round = first_round("KD", *ALONE)
    for seen, said in ((images.origin[images.val], True), (images.origin[images.pool], False), ([], False)):
        args.teacher = str(file(tmp_path / "t.npz", train=np.eye(DIGITS, 10), seen=[int(place) for place in seen]))
        run.state.pop("teacher", None)
        capsys.readouterr()
        teachers.Teacher(args, run, images).targets(this_round)
        assert ("; it has seen some of this run's validation labels" in capsys.readouterr().out) == said


def write(network, monkeypatch, path="logits.npz", **words) -> dict[str, np.ndarray]:
    """The result of `logits.write` for 7 training images of classes 0 to 3 and 5 test images, in batches of 3."""
    pixels = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    source = Source("toy", pixels[:7], np.arange(7) % 4, pixels[7:], np.arange(5) % 4, list("abcd"), mirror=None)
    monkeypatch.setattr(logits.datasets, "load", lambda args: source)
    logits.write(path, network, batch_size=3, **words)
    with np.load(path) as found:
        return dict(found)


def rate(images: np.ndarray) -> np.ndarray:
    """A network whose logits identify the image."""
    assert images.dtype == np.uint8 and images.shape[1:] == (1, 1, 3) and len(images) <= 3
    return images[:, 0, 0, :1] + np.array([0.25, 0.5, 0.75, 1])


def test_any_networks_logits_are_written_in_the_data_sets_order(monkeypatch, tmp_path):
    path = tmp_path / "t.npz"
    found = write(rate, monkeypatch, path, seen="all")
    assert found["train"][:, 0].tolist() == [0.25 + n for n in range(7)] and found["train"].dtype == np.float32
    assert found["test"][:, 3].tolist() == [8, 9, 10, 11, 12] and found["labels"].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert found["seen"].tolist() == list(range(7))
    mask = np.arange(7) % 3 == 2
    for seen, places in (("none", []), ([2, 5], [2, 5]), (mask, [2, 5]), (mask.tolist(), [2, 5])):
        assert write(rate, monkeypatch, path, seen=seen)["seen"].tolist() == places
    assert "seen" not in write(rate, monkeypatch, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"the network gives \(3, 3\) for 3 images of 4 classes"):
        write(lambda images: rate(images)[:, :3], monkeypatch, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "network", "said"),
    [
        ({"path": "t.pt"}, rate, r"t\.pt: must be an \.npz in a folder that is there"),
        ({"path": "nowhere/t.npz"}, rate, "must be an .npz in a folder that is there"),
        ({"seen": "All"}, rate, 'must be "all", "none", a mask of the training images or their places, from 0 to 6'),
        ({"seen": [True] * 6}, rate, "must be"),
        ({"seen": [3, 3]}, rate, "each of them once"),
        ({"seen": [0, 7]}, rate, "must be"),
        ({"seen": [0.5]}, rate, "must be"),
        ({}, lambda images: np.nan * rate(images), "the network gives values that are not finite"),
        ({}, lambda images: np.full((len(images), 4), 0.25), "the network gives probabilities; logits are wanted"),
    ],
)
def test_what_would_be_no_teacher_is_not_written(words, network, said, monkeypatch, tmp_path):
    path = tmp_path / words.pop("path", "t.npz")
    with pytest.raises(InputError, match=said):
        write(network, monkeypatch, path, **words)
    assert not list(tmp_path.iterdir())


def test_a_torch_network_may_keep_its_gradient(monkeypatch, tmp_path):
    found = write(lambda images: torch.from_numpy(rate(images)).requires_grad_(), monkeypatch, tmp_path / "t.npz")
    assert found["test"][:, 3].tolist() == [8, 9, 10, 11, 12]


def test_images_without_a_class_have_logits_too(monkeypatch, tmp_path):
    """As with --labels, whose CSV file names them."""
    asked = []
    monkeypatch.setattr(logits.datasets, "load", lambda args: asked.append(args) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits.write(tmp_path / "t.npz", rate, "my_images", labels="labels.csv", extra=True)
    assert (asked[0].labels, asked[0].extra, asked[0].dataset) == ("labels.csv", True, "my_images")


def test_what_was_written_teaches(monkeypatch, tmp_path):
    """Through the data set's own order, for a folder of digits' size, to a run's targets."""
    path = tmp_path / "t.npz"
    logits.write(path, lambda images: images.mean((1, 2))[:, :1] - np.arange(10), dataset="digits", seen="none")
    whole = data.load(named(path, "--num_images", str(DIGITS)))
    found, _ = precomputed.load(named(path), whole)
    assert len(found.seen) == 0 and found.accuracy == f"{100 * (whole.test_labels == 0).double().mean():.2f}"
    means = digits.load(tmp_path, None).x_train.mean((1, 2))[whole.origin, 0]
    assert found.logits[0, :, 0].numpy() == pytest.approx(means)


def test_a_folders_rows_are_refused_once_its_images_changed(tmp_path):
    """Regression: an image removed and another added leave counts and labels as they were, and shift the rows."""
    for part in ("train", "test"):
        for number in range(8):
            path = tmp_path / "own" / part / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(path)
    own, path = str(tmp_path / "own"), tmp_path / "t.npz"
    logits.write(path, lambda images: images[:, 0, 0, :1] * [0.01, 0.02], dataset=own, seen="none")
    words = ["--dataset", own, "--num_images", "8", "--num_val", "2", "--num_classes", "2", "--batch_size", "2"]
    words += ["--initial_budget", "2", "--budget", "2", "--subset", "2"]
    args = named(path, *words)
    assert precomputed.load(args, data.load(args))[0].logits.shape == (1, 8, 2)
    (tmp_path / "own" / "train" / "a" / "0.png").rename(tmp_path / "own" / "train" / "a" / "9.png")
    with pytest.raises(InputError, match="was written for other training images, or for another order of them; write"):
        precomputed.load(args, data.load(args))


def test_readmes_file_is_one(tmp_path, monkeypatch):
    """Its Python code, unchanged."""
    monkeypatch.chdir(tmp_path)
    code = next(part for part in README.read_text().split("```python\n") if "my_network" in part).split("```")[0]
    write(rate, monkeypatch)  # in place of CIFAR-10
    exec(code, {"my_network": lambda images: np.zeros((len(images), 4))})
    with np.load("logits.npz") as found:
        assert found["train"].shape == (7, 4) and len(found["seen"]) == 7


def test_a_runs_own_network_is_written_for_the_whole_data_set(tmp_path):
    """The mean over the views that KD would draw, in the data set's order, and whose labels the network saw."""
    words = [*TOY, "--percents", "20", "50", "--subset", "120", "--train_epochs", "1", "--save_path", str(tmp_path)]
    run("Random", *words, "--keep", "last")
    folder, path = tmp_path / "random-seed5", tmp_path / "own.npz"
    logits.main([str(folder), "--round", "0", "--views", "3", "--shift", "2", "--output", str(path)])
    with np.load(path) as found:
        arrays = dict(found)
    student = predict.load_student(folder, 0)
    args = parse("Single", "--num_images", str(DIGITS), "--take", "first", "--seed", "5")
    whole = data.load(args)
    args.views, args.shift = 3, 2
    views = distillation.fixed_views(args, whole)
    _, each = distillation.compute(student.net, whole, views=views, features=False)
    assert arrays["train"] == pytest.approx(each.mean(0).numpy()) and arrays["train"].shape == (DIGITS, 10)
    assert arrays["labels"].tolist() == whole.labels.tolist()
    right = 100 * (arrays["test"].argmax(1) == whole.test_labels.numpy()).mean()
    assert f"{right:.2f}" == student.record["test_accuracy"]
    bought = {int(row["index"]) for row in rows(folder, "queries") if row["round"] == "0"}
    assert set(arrays["seen"].tolist()) == bought and len(bought) == 40
    run("KD", *words[:-2], "--save_path", str(tmp_path), *ALONE, "--teacher", str(path), "--keep", "last")
    assert [row["labels_in_all"] for row in rows(tmp_path / "kd-seed5", "results")] == ["40", "100"]


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_whose_labels_a_runs_networks_saw(ten, tmp_path):
    """From queries.csv, with those that chose the epoch, or all; omitted if a teacher's labels are unknown."""
    lines = ["round,index,score,label", "0,0,,0", "0,1,,1", "1,3,,1", "2,4,,1"]
    (tmp_path / "queries.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "round_02.pt").touch()  # one round later was refused as never begun
    ten.val = torch.tensor([0, 1])  # places 9 and 0 of the data set
    asked = []
    for keep, number, in_all in (
        ("last", 0, 2),
        ("last", 1, 3),
        ("best", 1, 4),
        ("best", 0, 8),
        ("last", 1, 5),
        ("last", 0, ""),
    ):
        record = {"round": number, "labels_in_all": in_all}
        found = logits._seen(parse("KD", "--keep", keep), ten, record, tmp_path)
        asked.append(None if found is None else sorted(found.tolist()))
    assert asked == [[0, 1], [0, 1, 3], [0, 1, 3, 9], sorted(ten.origin.tolist()), None, None]
    assert logits._seen(parse("KD"), ten, {"seen": torch.tensor([4])}, tmp_path).tolist() == [4]


@pytest.mark.parametrize(("words", "flag"), [(["--shift", "65"], "--shift"), (["--views", "128"], "--views")])
def test_views_that_no_run_draws_are_refused(words, flag):
    with pytest.raises(InputError, match=f"{flag}: .* is out of range"):
        logits.main(["nowhere", *words])
