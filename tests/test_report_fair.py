"""The report of runs whose labels are counted once: the fair teacher's row, and the labels behind each cell."""

import json
import re

import pandas as pd
import pytest

from common import recipes, report
from common.errors import InputError
from common.report import builds, figures, naming, page, results, style, tables

from .conftest import ROOT
from .reports import HEADER, refused, run


def fair(folder, method, seed, accuracies, teacher, labels, sampler="random"):
    """A run's files, with columns teacher_accuracy and labels_in_all."""
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


def varied(folder, seed, columns, config, counts=(5000, 10000), teacher=("71.50", "77.00")):
    """KD with a fair teacher, with extra columns in results.csv and these flags in config.json."""
    fair(folder, "KD", seed, {10: 66, 20: 70}, teacher, counts)
    head, *lines = (folder / "results.csv").read_text().splitlines()
    more = [",".join([line, str(count), *columns.values()]) for line, count in zip(lines, (5000, 10000), strict=True)]
    (folder / "results.csv").write_text("\n".join([",".join([head, "labeled", *columns]), *more]) + "\n")
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | config))
    return folder


def baselines(folders):
    rows = results.read(folders).rows
    return rows[rows["label"].str.startswith("Baseline")]


def test_fair_teachers_that_start_otherwise_are_rows_of_their_own(tmp_path):
    anew = varied(tmp_path / "anew", 1, {"teacher_start": "anew"}, {"teacher_start": "anew"})
    before = varied(
        tmp_path / "before", 1, {"teacher_start": "before"}, {"teacher_start": "before"}, teacher=("70", "75")
    )
    for order in ([anew, before], [before, anew]):
        found = baselines(order).set_index(["label", "percent"])["test_accuracy"].to_dict()
        assert found == {
            ("Baseline", 10): 71.5, ("Baseline", 20): 77, ("Baseline (before)", 10): 70, ("Baseline (before)", 20): 75
        }  # fmt: skip


def test_what_the_student_sees_does_not_set_its_fair_teacher_apart(tmp_path):
    """Unless a second teacher learns the means of the views that the student sees."""

    def made(name, seed, views, **more):
        return varied(tmp_path / name, seed, {"views": str(views), **more}, {"views": views, "shift": views, **more})

    one = [made("one1", 1, 0), made("one2", 2, 0)]
    more = [made("more1", 1, 4), made("more3", 3, 4)]
    assert set(baselines([made("two", 1, 2, targets="mean"), made("three", 1, 3, targets="mean"), *one])["seed"]) == {
        1,
        2,
    }
    for order in ([*one, *more], [*more, *one]):  # seed 1's once, whichever comes first
        found = baselines(order)
        assert set(found["label"]) == {"Baseline"} and sorted(found["seed"]) == [1, 1, 2, 2, 3, 3]
    means = {"targets": "mean", "teacher_pool": "self_training"}
    assert set(baselines([made("mean", 1, 4, **means), *one])["label"]) == {"Baseline", "Baseline (self_training)"}
    apart = baselines([made("mean4", 1, 4, **means), made("mean8", 1, 8, **means)])
    assert set(apart["label"]) == {"Baseline (views 4)", "Baseline (views 8)"}


def test_one_row_has_fair_teachers_of_one_recipe(tmp_path):
    """Separate rows of students may have teachers of two recipes, even if the teachers' row is not wanted."""
    short = varied(tmp_path / "short", 1, {"keep": "best"}, {"teacher_epochs": 5, "teacher_seed": 3, "num_val": 5})
    long = varied(tmp_path / "long", 2, {"keep": "last"}, {"teacher_epochs": 11, "teacher_seed": 4})
    rows = results.read([short, long]).rows
    assert set(rows.loc[rows["own"], "label"]) == {"CM+KD", "CM+KD (last)"}
    found = rows[~rows["own"]].groupby("label")["seed"].unique().map(list).to_dict()
    assert found == {"Baseline (teacher_epochs 5)": [1], "Baseline (teacher_epochs 11)": [2]}
    bought = {"val_labels": "bought", "num_val": 10, "teacher_epochs": 5}
    labels = set(baselines([short, varied(tmp_path / "bought", 3, {"keep": "last"}, bought)])["label"])
    assert "Baseline (num_val 10, val_labels bought)" in labels and len(labels) == 2


@pytest.mark.parametrize(
    ("flag", "columns"),
    [
        ("teacher_more_epochs", {"teacher_start": "before"}),
        ("teacher_pool_epochs", {"teacher_pool": "fixmatch"}),
        (
            "shift",
            {"teacher_pool": "self_training", "targets": "mean", "views": "4"},
        ),  # the views whose means it learns
    ],
)
def test_a_flag_that_its_fair_teacher_depends_on_sets_it_apart(flag, columns, tmp_path):
    folders = [varied(tmp_path / str(n), n, columns | {"mixup": str(n)}, columns | {flag: n}) for n in (1, 2)]
    found = baselines(folders).groupby("label")["seed"].unique().map(list).to_dict()
    assert found == {f"Baseline ({flag} 1)": [1], f"Baseline ({flag} 2)": [2]}


def test_one_teacher_is_one_however_its_flags_were_written(tmp_path):
    """A recipe's 80 and the command line's 80.0; and a flag without effect."""
    recipe = varied(tmp_path / "recipe", 1, {"mixup": "0"}, {"teacher_passes": 80, "teacher_start": "anew"})
    same = {"teacher_passes": 80.0, "teacher_start": "anew", "teacher_more_epochs": 2, "teacher_pool_epochs": 9}
    typed = varied(tmp_path / "typed", 1, {"mixup": "1"}, same | {"teacher_pool": "none"})
    for order in ([recipe, typed], [typed, recipe]):
        found = baselines(order)
        assert found["label"].tolist() == ["Baseline"] * 2 and found["percent"].tolist() == [10, 20]


def test_a_fair_teacher_saw_its_own_labels_alone(tmp_path):
    """Not those that choose the student's epoch."""
    found = baselines([varied(tmp_path / "kd", 1, {}, {}, counts=(10000, 15000))])
    assert found["labels_in_all"].astype(int).tolist() == [5000, 10000]


def test_a_teacher_trained_for_itself_is_a_row_apart(runs, tmp_path):
    """It has its own recipe: no mean is taken over both kinds, and neither hides the other."""
    own = run(tmp_path / "own", "Random", 1, {10: 70}, network="teacher")
    rows = baselines([*runs, own])
    assert rows.loc[rows["label"] == "Baseline", "test_accuracy"].tolist() == [70]
    fair_ones = rows[rows["label"] == "Baseline (fair)"]
    assert sorted(fair_ones["test_accuracy"]) == [71.5, 72.5, 75, 76]
    second = varied(tmp_path / "second", 1, {"teacher_pool": "self_training"}, {"teacher_pool": "self_training"})
    assert "Baseline (fair, self_training)" in set(baselines([*runs, own, second])["label"])


def test_random_labels_of_one_run_are_the_baselines_whatever_the_order(tmp_path):
    """Other --percents draw other random labels at a percent: the run with the most rounds counts."""
    short = varied(tmp_path / "a", 1, {"keep": "last"}, {"keep": "last"}, teacher=("60", "65"))
    long = fair(tmp_path / "b", "KD", 1, {5: 50, 10: 66, 20: 70}, ("55", "71", "77"), (2500, 5000, 10000))
    for order in ([short, long], [long, short]):
        assert baselines(order).sort_values("percent")["test_accuracy"].tolist() == [55, 71, 77]


def test_labels_that_are_held_out_of_the_bought_ones_are_not_the_teachers(tmp_path):
    made = varied(tmp_path / "kd", 1, {}, {"val_labels": "bought", "num_val": 100})
    assert baselines([made])["labels_in_all"].astype(int).tolist() == [4900, 9900]


def test_the_page_names_each_run_by_its_own_row(runs):
    """Its fair teachers' rows have the same run name."""
    table = page.provenance(results.read(runs))
    assert [(row[0], row[1], row[4]) for row in table.rows if row[0].startswith("kd")] == [
        ("kd1", "CM+KD", "2"), ("kd2", "CM+KD", "2")
    ]  # fmt: skip


def test_a_cell_whose_seeds_saw_other_numbers_of_labels_says_so(tmp_path):
    made = [fair(tmp_path / str(n), "KD", n, {10: 66}, ("70",), (count,)) for n, count in ((1, 268), (2, 269))]
    for order in (made, made[::-1]):
        assert "- AlexNet on cifar10, CM+KD: 268 to 269" in tables.labels_counted(results.read(order))[0]


def test_the_labels_behind_each_cell_are_told(runs, tmp_path):
    text = report.write(runs, tmp_path / "out", time_inference=False)[0].read_text()
    assert "- AlexNet on cifar10, CM: 10,000, 15,000" in text
    assert "- AlexNet on cifar10, CM+KD: 5,000, 10,000" in text
    before = results.read([run(tmp_path / "before", "Random", 1, {10: 54})])
    assert tables.labels_counted(before) == []


@pytest.mark.parametrize(
    ("columns", "none"),
    [
        ({"ce_wt": "0.0", "logit_loss": "kl"}, True),
        ({"ce_wt": "0.0", "logit_loss": "dkd"}, False),  # it needs labels too,
        ({"ce_wt": "0.0", "logit_loss": "dkd", "distill_on": "pool"}, True),  # which the pool's batches have not
        ({"ce_wt": "1.0", "logit_loss": "kl"}, False),
        ({"ce_wt": ""}, False),
    ],
)
def test_a_student_that_learned_no_label_is_told(columns, none, tmp_path):
    """A student that also learned from labels has the same counts."""
    made = fair(tmp_path / "kd", "KD", 1, {10: 66, 20: 70}, ("71.50", "77.00"), (5000, 10000))
    pd.read_csv(made / "results.csv", dtype=str).assign(**columns).to_csv(made / "results.csv", index=False)
    (text,) = tables.labels_counted(results.read([made]))
    assert set(text.splitlines()[1:]) == {
        "- AlexNet on cifar10, Baseline: 5,000, 10,000",
        "- AlexNet on cifar10, CM+KD: 5,000, 10,000" + tables.NONE * none,
    }


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


def test_runs_of_two_recipes_are_two_rows(tmp_path):
    """Regression: the plain and the best student alone were refused as one row; `make fair` had only the first."""

    def made(name, seed, recipe, method="Random", network="student", **config):
        plain = {"lr_task": 0.01, "fold_bn": False, "weight_decay": 0.0005}
        return run(tmp_path / name, method, seed, {10: 60}, network, **{**plain, **recipe, **config})

    best = recipes.student("best", "Random", "AlexNet")
    typed = made("typed", 1, recipes.student("fair", "Random", "AlexNet") | {"shift": 4.0})  # and without --recipe
    alone = [typed, made("best1", 1, best), made("best2", 2, best)]
    labels = results.read(alone).rows["label"].tolist()
    assert labels == ["CM", "CM (best)", "CM (best)"]
    assert results.read(alone[1:]).rows["label"].tolist() == ["CM", "CM"]  # no other row to distinguish it from
    own = made("own", 1, {})
    named = dict(zip(*(results.read([*alone, own]).rows[name] for name in ("run", "label")), strict=True))
    assert [named[str(folder)] for folder in (own, *alone)] == ["CM", "CM (fair)", "CM (best)", "CM (best)"]
    quick = [made(f"quick{n}", 1, flags, network="teacher") for n, flags in enumerate(({}, recipes.quick("AlexNet")))]
    assert results.read(quick).rows["label"].tolist() == ["Baseline", "Baseline (quick)"]
    changed = made("changed", 3, best, weight_decay=0.001)  # no longer best's, but fair's with other flags
    assert "--weight_decay 0.0005 and 0.001" in refused(typed, changed)


def test_a_recipe_of_ones_own_renames_no_student_alone(tmp_path, monkeypatch):
    """Regression: with any line added to STUDENTS, a student alone of `fair` was named by that line."""
    monkeypatch.setitem(recipes.STUDENTS, "mine", recipes.STUDENT | {"mixup": 1.0})
    monkeypatch.setattr(naming, "RECIPES", ["own", *recipes.STUDENTS, *recipes.TEACHERS])
    plain = {"lr_task": 0.01, "fold_bn": False, "weight_decay": 0.0005}
    made = [{}, recipes.student("fair", "Random", "AlexNet"), recipes.student("best", "Random", "AlexNet")]
    alone = [run(tmp_path / f"a{n}", "Random", 1, {10: 60}, "student", **plain | flags) for n, flags in enumerate(made)]
    assert results.read(alone).rows["label"].tolist() == ["CM", "CM (fair)", "CM (best)"]


def test_rows_of_other_networks_logits_are_named_by_their_files(tmp_path):
    """Regression: two teachers were averaged in one row, with the dagger of one that saw every label."""
    for name, teacher in (("a", "/x/clip.npz"), ("b", "/y/vit.npz"), ("c", ""), ("d", "/x/other.pt")):
        config = {"teacher": teacher, "teacher_sha256": name * 64}
        run(tmp_path / name, "KD", 1 if name < "d" else 2, {10: 60.5}, **config)
    run(tmp_path / "e", "KD", 2, {10: 50}, teacher="/elsewhere/clip.npz", teacher_sha256="e" * 64)
    found = results.read([tmp_path / name for name in "abcde"])
    labels = dict(zip(found.rows["run"].map(lambda run: run[-1]), found.rows["label"], strict=True))
    expected = {"a": "CM+KD (clip.npz)", "b": "CM+KD (vit.npz)", "c": "CM+KD†", "d": "CM+KD†", "e": "CM+KD (clip.npz)"}
    assert labels == expected
    for seed, name, teacher in ((1, "f", "a"), (2, "g", "g")):  # like KD's of its seed, and another one of that name
        sha = {"teacher": "/x/clip.npz", "teacher_sha256": teacher * 64}
        run(tmp_path / name, "EnCoDe", seed, {10: 50}, sampler="vae", **sha)
    unlike = builds.compare(
        results.read([tmp_path / name for name in "aefg"]).made, [(str(tmp_path / "a"), str(tmp_path / "f"))], False
    )
    assert not unlike
    with pytest.raises(InputError, match="teacher"):
        made = results.read([tmp_path / name for name in "aefg"]).made
        builds.compare(made, [(str(tmp_path / "e"), str(tmp_path / "g"))], False)


@pytest.mark.parametrize(
    ("config", "labeled", "counted", "dagger"),
    [
        ({"keep": "last"}, (5000, 9000), (9000, 9000), True),  # a run's row has one name
        ({"keep": "last"}, (5000, 9000), (5000, 9000), False),  # the teacher of its very labels, by --teacher
        ({"keep": "best"}, (5000, 9000), (10000, 14000), False),  # validation labels chose the epoch
        ({"keep": "best", "val_labels": "bought"}, (5000, 9000), (5001, 9000), True),
        ({"keep": "best"}, (44000, 45000), (49000, 50000), True),  # all of them, as its teacher
        ({"keep": "last"}, (5000, 45000), (45000, 45000), True),
        ({"keep": "last"}, (5000, 45000), (5000, 45000), False),  # of none: in the last round, the student has all
        ({"keep": "last"}, (5000, 9000), ("", ""), True),  # unknown: a checkpoint from elsewhere
    ],
)
def test_a_teacher_of_other_labels_than_its_students_has_a_dagger(config, labeled, counted, dagger, tmp_path):
    """Regression: any --teacher got one, even one of 120 labels."""
    run(tmp_path / "a", "KD", 1, {10: 60.5, 20: 61}, num_images=50000, num_val=5000, teacher="/x/round_00.pt", **config)
    path = tmp_path / "a" / "results.csv"
    head, *lines = path.read_text().splitlines()
    more = [f"{line},{own},{all_}" for line, own, all_ in zip(lines, labeled, counted, strict=True)]
    path.write_text("\n".join([f"{head},labeled,labels_in_all", *more]) + "\n")
    assert set(results.read([tmp_path / "a"]).rows["label"]) == {"CM+KD†" if dagger else "CM+KD"}


def test_logits_of_a_network_that_saw_every_label_have_its_dagger(tmp_path):
    for name, seen in (("a", 45000), ("b", 44999), ("c", "")):
        config = {"teacher": f"/x/{name}.npz", "num_images": 50000, "num_val": 5000}
        run(tmp_path / name, "KD", 1, {10: 60.5}, **config)
        text = (tmp_path / name / "results.csv").read_text().splitlines()
        (tmp_path / name / "results.csv").write_text(f"{text[0]},labels_in_all\n{text[1]},{seen}\n")
    labels = results.read([tmp_path / name for name in "abc"]).rows["label"].tolist()
    assert labels == ["CM+KD (a.npz)†", "CM+KD (b.npz)", "CM+KD (c.npz)"]
