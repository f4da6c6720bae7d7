"""The report of runs whose labels are counted once: the fair teacher's row, and the labels behind each cell."""

import re

import pytest

from common import report
from common.report import figures, results, style, tables

from .conftest import ROOT
from .reports import HEADER, run


def fair(folder, method, seed, accuracies, teacher, labels, sampler="random"):
    """A run's files with the columns teacher_accuracy and labels_in_all."""
    run(folder, method, seed, accuracies, sampler=sampler)
    path = folder / "results.csv"
    head, *lines = path.read_text().splitlines()
    lines = [line.replace(",all,", ",labeled,") for line in lines]
    more = [f"{line},{accuracy},{count}" for line, accuracy, count in zip(lines, teacher, labels, strict=True)]
    path.write_text("\n".join([head + ",teacher_accuracy,labels_in_all", *more]) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        fair(tmp_path / "margin1", "KD", 1, {10: 66, 20: 70}, ["71.50", "77.00"], [5000, 10000], sampler="margin"),
        fair(tmp_path / "kd1", "KD", 1, {10: 66, 20: 68}, ["71.50", "75.00"], [5000, 10000]),
        fair(tmp_path / "kd2", "KD", 2, {10: 67, 20: 69}, ["72.50", "76.00"], [5000, 10000]),
        fair(tmp_path / "cm1", "Random", 1, {10: 54, 20: 60}, ["", ""], [10000, 15000]),
    ]


def test_the_fair_teacher_of_random_labels_is_the_baseline(runs):
    rows = results.read(runs).rows
    baseline = rows[rows["label"] == "Baseline"]
    found = baseline[["seed", "percent", "test_accuracy"]].apply(tuple, axis=1)
    assert set(found) == {(1, 10, 71.5), (1, 20, 75.0), (2, 10, 72.5), (2, 20, 76.0)}  # not margin's 77
    assert not baseline["own"].any() and rows["own"].sum() == 8
    assert set(rows["label"]) == {"Baseline", "CM", "CM+KD", "CM+KD (margin)"}


def test_a_fair_teacher_adds_no_history_and_no_queries(runs):
    found = results.read(runs)
    assert "Baseline" not in set(found.history["label"]) | set(found.queries["label"])
    assert len(found.history) == 4 * 2 * 2


def test_a_teacher_trained_for_itself_is_the_baseline(runs, tmp_path):
    own = run(tmp_path / "own", "Random", 1, {10: 70}, network="teacher")
    rows = results.read([*runs, own]).rows
    baseline = rows[(rows["label"] == "Baseline") & (rows["seed"] == 1)].sort_values("percent")
    assert baseline["test_accuracy"].tolist() == [70, 75.0]  # its own where it has one


def test_the_labels_behind_each_cell_are_told(runs, tmp_path):
    text = report.write(runs, tmp_path / "out", time_inference=False)[0].read_text()
    assert "- AlexNet on cifar10, CM: 10,000, 15,000" in text
    assert "- AlexNet on cifar10, CM+KD: 5,000, 10,000" in text
    before = results.read([run(tmp_path / "before", "Random", 1, {10: 54})])
    assert tables.labels_counted(before) == []


def test_the_curves_stand_on_all_labels_too_where_they_are_known(runs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "curve", lambda axes, group, x, y, *_, **__: drawn.append((x, sorted(group[x]))))
    assert {path.stem for path in figures.labels(results.read(runs), tmp_path)} == {"labels"}
    assert [counts for x, counts in drawn if x == "labels_in_all"][1] == [10000, 15000]  # CM's, its validation included
    before = results.read([run(tmp_path / "before", "Random", 1, {10: 54})])
    assert figures.labels(before, tmp_path) == []


def test_rows_of_the_fair_table_are_named_by_what_sets_them_apart(tmp_path):
    made = {
        "CM+KD (pool, fair, ce_wt 0)": "KD,random,pool,kl,labeled,0.0",
        "CM+KD (fair)": "KD,random,labeled,kl,labeled,1.0",
        "CM+KD (pool, ce_wt 0)†": "KD,random,pool,kl,all,0.0",
        "EnCoDe": "EnCoDe,vae,pool,kl,labeled,0.0",
    }
    folders = []
    for number, line in enumerate(made.values()):
        method, *flags = line.split(",")
        folders.append(run(tmp_path / str(number), method, 1, {10: 60}))
        head = HEADER.replace("percent,test", "percent,ce_wt,test")
        row = ["AlexNet", "cifar10", method, "student", *flags[:-1], "1", "0", "10", flags[-1], "60"]
        (folders[-1] / "results.csv").write_text(f"{head}\n{','.join(row)}\n")
    assert set(results.read(folders).rows["label"]) == set(made)
    against = re.search(r'--against "(.*?)"', (ROOT / "Makefile").read_text(encoding="utf-8"))[1]
    assert against == next(iter(made))  # the row of make fair that the others are tested against
