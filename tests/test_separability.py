"""The tool that shows whether a discriminator could learn anything, on features with a known answer."""

import json

import numpy as np
import pandas as pd
import pytest

from common import datasets, entry, recorded
from common.analysis import separability
from common.errors import InputError
from common.report import results, sheets

from .conftest import BUDGET, TOY, run

PARTS = {"train": 60, "test": 20}


def test_alike_is_half_and_apart_is_one():
    source = np.random.default_rng(0)
    labeled, alike = source.normal(size=(2, 1000, 8))
    found = separability.separability(labeled, alike)
    assert found.keys() == {"linear", "network"}
    assert all(area == pytest.approx(0.5, abs=0.05) for area in found.values())  # 0.5 has a standard error of 0.013
    assert all(area > 0.999 for area in separability.separability(labeled, alike + 5).values())


def test_a_row_for_each_round_that_has_both_pools(tmp_path, capsys):
    run("Random", *TOY, *BUDGET, "--save_path", str(tmp_path))
    capsys.readouterr()
    separability.main([str(tmp_path / "random-seed5"), "--data_dir", str(tmp_path)])
    name, header, *rows = capsys.readouterr().out.splitlines()
    assert name == str(tmp_path / "random-seed5")
    assert header.split() == ["labels", "linear", "network", "labeled", "unlabeled", "queried"]
    assert [row.split()[0] for row in rows] == ["40", "100"]  # the third round has the whole pool
    assert all(0 <= float(value) <= 100 for row in rows for value in row.split()[1:])


@pytest.mark.parametrize(("few", "areas"), [(9, 0), (10, 2)])
def test_areas_are_blank_for_pools_too_small_to_be_split(tmp_path, few, areas):
    words = ["--initial_budget", str(few), "--budget", str(160 - 2 * few), "--subset", "160", "--train_epochs", "1"]
    run("Random", *TOY, *words, "--save_path", str(tmp_path))  # labelled: few of 160, then all but few
    rows = separability.rounds(tmp_path / "random-seed5", tmp_path)
    assert [row["labels"] for row in rows] == [few, 160 - few]
    assert all(sum(row[name] >= 0 for name in separability.CLASSIFIERS) == areas for row in rows)


@pytest.fixture
def done(tmp_path):
    """A finished run of a student without a teacher: two rounds on an .npz of four classes."""
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (count, 8, 8, 3), np.uint8) for part, count in PARTS.items()}
    labels = {f"y_{part}": np.arange(count) % 4 for part, count in PARTS.items()}
    np.savez(tmp_path / "own.npz", **images, **labels)
    words = ["--dataset", str(tmp_path / "own.npz"), "--num_images", "60", "--num_val", "10", "--num_classes", "4"]
    words += ["--initial_budget", "20", "--budget", "20", "--subset", "20", "--rounds", "2", "--train_epochs", "1"]
    run("Random", *TOY, *words, "--save_path", str(tmp_path))
    return tmp_path / "random-seed5"


def test_each_pool_is_of_its_own_images(done, monkeypatch):
    """A network that is right only about the second round's queries, with features that identify the image."""
    queries = pd.read_csv(done / "queries.csv")
    first, second = (set(queries.loc[queries["round"] == number, "index"]) for number in (0, 1))
    images, _ = recorded.images(done, done)
    images_of_pool = images.origin[images.pool].numpy()
    told_apart = []

    def look(net, _):
        assert not net.training
        return images_of_pool[:, None], np.isin(images_of_pool, [*second])

    monkeypatch.setattr(separability, "look", look)
    monkeypatch.setattr(
        separability, "separability", lambda *pools: told_apart.append([set(pool[:, 0]) for pool in pools]) or {}
    )
    one, two = separability.rounds(done, done)
    assert (one["labeled"], one["unlabeled"], one["queried"]) == (0, pytest.approx(100 * 20 / 30), 100)
    assert (two["labeled"], two["unlabeled"]) == (50, 0) and "queried" not in two
    rest = {*images_of_pool} - first
    for (labeled, unlabeled), own, others in zip(
        told_apart, (first, first | second), (rest, rest - second), strict=True
    ):
        assert labeled <= own and unlabeled <= others and len(labeled) == len(unlabeled) == min(len(own), len(others))


def test_bought_validation_images_belong_to_neither_pool(tmp_path, monkeypatch):
    words = ["--initial_budget", "40", "--budget", "40", "--subset", "40", "--rounds", "1", "--train_epochs", "1"]
    words += ["--val_labels", "bought", "--num_val", "10", "--save_path", str(tmp_path)]
    run("Random", *TOY, *words)
    told_apart = []
    monkeypatch.setattr(separability, "separability", lambda *pools: told_apart.append(list(map(len, pools))) or {})
    (row,) = separability.rounds(tmp_path / "random-seed5", tmp_path)
    assert row["labels"] == 40 and told_apart == [[30, 30]]


def test_other_images_than_the_runs_are_refused(done):
    """Otherwise sheets and areas would be of images that were not queried."""
    assert len(separability.rounds(done, done)) == 2
    path = done.parent / "own.npz"
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"x_train": np.roll(arrays["x_train"], 1, 0)})
    with pytest.raises(InputError, match="random-seed5 was made with other training images under this --dataset"):
        separability.rounds(done, done)
    with pytest.raises(InputError, match="random-seed5 was made with other training images under this --dataset"):
        sheets.contact_sheets(results.read([done]), done, done)


def test_sheets_of_two_folders_of_one_name_have_two_names():
    found = sheets._names(["runs/a/kd-seed1", "runs/b/kd-seed1", "./runs/a/kd-seed1"])
    assert list(found.values()) == ["a-kd-seed1", "b-kd-seed1", "a-kd-seed1"]
    assert sheets._names(["runs/a/kd-seed1", "runs/b/kd-seed2"]) == {
        "runs/a/kd-seed1": "kd-seed1", "runs/b/kd-seed2": "kd-seed2",
    }  # fmt: skip


def test_sheets_read_a_runs_images_once(done, monkeypatch):
    load, read = datasets.load, []
    monkeypatch.setattr(datasets, "load", lambda args: read.append(args.dataset) or load(args))
    assert len(sheets.contact_sheets(results.read([done]), done, done)) == 1 and len(read) == 1


def test_a_run_from_before_a_flag_or_column_is_looked_at_as_it_was(done):
    path = done / "config.json"
    config = json.loads(path.read_text())
    rows = separability.rounds(done, done)
    path.write_text(json.dumps({name: config[name] for name in config if name not in ("val_labels", "take", "extra")}))
    assert separability.rounds(done, done) == rows
    table = pd.read_csv(done / "results.csv")
    table.drop(columns="labeled").to_csv(done / "results.csv", index=False)
    assert separability.rounds(done, done) == rows
    for wrong in ({"model": "LeNet"}, {"method": None}):
        path.write_text(json.dumps(config | wrong))
        with pytest.raises(InputError, match=r"config\.json: does not say whose run this is"):
            separability.rounds(done, done)


def test_a_run_without_an_unlabelled_image_is_refused(tmp_path):
    run("Single", *TOY, "--train_epochs", "1", "--save_path", str(tmp_path))
    with pytest.raises(InputError, match=r"single-seed5: has no finished round, .* that left images unlabelled"):
        separability.main([str(tmp_path / "single-seed5"), "--data_dir", str(tmp_path)])


def test_what_is_no_run_is_refused_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["separability.py", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as caught:
        entry.run(separability.main)
    assert caught.value.code == 2 and "nowhere: not the folder of a run" in capsys.readouterr().err


def test_labels_that_are_missing_make_no_accuracy(done, monkeypatch):
    """An image without a label must not count as wrong; with `--labels`, the run's labels are in queries.csv."""
    load = recorded.images

    def unlabeled(*words, **options):
        images, args = load(*words, **options)
        images.labels[:] = -1
        return images, args

    before = separability.rounds(done, done)
    monkeypatch.setattr(recorded, "images", unlabeled)
    first, second = separability.rounds(done, done)
    assert (first["labeled"], first["queried"]) == (before[0]["labeled"], before[0]["queried"])
    assert "unlabeled" not in first and "unlabeled" not in second and second["labeled"] == before[1]["labeled"]


def test_a_query_of_which_labels_are_awaited_has_no_accuracy(done, monkeypatch):
    """Regression: it was that of the images whose labels are there, which are no random part."""
    test_labels_that_are_missing_make_no_accuracy(done, monkeypatch)  # from here on, only queries.csv has labels
    lines = [line.split(",") for line in (done / "queries.csv").read_text().splitlines()]
    place = {name: lines[0].index(name) for name in ("round", "label")}
    asked = [line for line in lines if line[place["round"]] == "1"]
    for line in asked[:5]:
        line[place["label"]] = ""
    (done / "queries.csv").write_text("\n".join(map(",".join, lines)) + "\n")
    (done / "results.csv").write_text("".join((done / "results.csv").read_text().splitlines(keepends=True)[:2]))
    (row,) = separability.rounds(done, done)
    assert "queried" not in row and row["labeled"] >= 0


def test_a_round_that_results_csv_does_not_know_is_no_round(done):
    """A run restarted in this folder leaves the old run's round files until it reaches those rounds."""
    first, _ = separability.rounds(done, done)
    lines = (done / "results.csv").read_text().splitlines(keepends=True)
    (done / "results.csv").write_text("".join(lines[:2]))
    assert separability.rounds(done, done) == [first]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("queries.csv", lambda text: text[:100], r"queries\.csv: line \d+ has"),
        ("queries.csv", lambda text: "\n".join(text.splitlines()[:-25]) + "\n", r"queries\.csv: has 15 images of the "
         "pool up to round 0, results.csv has 20"),
        ("queries.csv", lambda text: text + "1,99999,,0\n", r"queries\.csv: there is no image 99999 in the run's data"),
        ("queries.csv", lambda text: "round,idx\n", r"queries\.csv: not a run's queries \(no column index, label\)"),
        ("results.csv", lambda text: "\xff\xfe", r"results\.csv: not a run's results"),
        ("config.json", lambda text: '{"model": "AlexNet", "method": "Random"}', r"config\.json: does not say dataset, "
         "image_size, num_images, num_val, seed"),
        ("config.json", lambda text: text.replace('"num_images": 60', '"num_images": "many"'), r"config\.json: .*"
         "'many' is not a whole number"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_refused_and_never_measured(file, change, message, done):
    text = (done / file).read_text()
    assert change(text) != text
    (done / file).write_text(change(text), encoding="latin-1")
    with pytest.raises(InputError, match=message):
        separability.rounds(done, done)
