"""The report's numbers against values computed by hand or by scipy, and what it must refuse."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from common import report
from common.errors import InputError
from common.report import inference, latex, results, statistics, tables
from common.schema import VARIANTS

from .reports import ALEXNET, HEADER, claims, edit, refused, run, sitting


@pytest.fixture
def grid(tmp_path):
    """Three seeds of CM, CM+KD and EnCoDe at 10, 50 and 100%."""
    made = []
    for seed, shift in ((1, 0.0), (2, 1.0), (3, -1.0)):
        made.append(run(tmp_path / f"kd{seed}", "KD", seed, {10: 60 + shift, 50: 66 + shift, 100: 71.5}))
        made.append(run(tmp_path / f"cm{seed}", "Random", seed, {10: 55 + shift, 50: 63 + 2 * shift, 100: 68}))
        curve = {10: 58 + shift, 50: 70 + shift, 100: 72}
        made.append(run(tmp_path / f"en{seed}", "EnCoDe", seed, curve, sampler="vae"))
    return made


def test_table1_shows_interval_n_the_papers_number_and_the_difference(grid, tmp_path):
    files = report.write(grid, tmp_path / "out", time_inference=False)
    lines = files[0].read_text().splitlines()
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[:5]}
    assert list(rows)[2:] == ["CM", "CM+KD†", "EnCoDe†"]  # the paper's order, whatever the order of the arguments
    # t(0.975, 2) = 4.3027; 55, 56, 54 have the standard error 1 / sqrt(3)
    assert rows["CM"][0] == "55.00 ± 2.48 (n=3) [54.59, +0.41]"
    assert rows["CM"][1] == "63.00 ± 4.97 (n=3) [63.39, -0.39]"
    assert rows["EnCoDe†"][2] == "72.00 ± 0.00 (n=3) [71.48, +0.52]"
    assert "† distilled from a teacher that saw every label, or some that its student did not buy" in lines[-4]
    latex = (tmp_path / "out" / "table1.tex").read_text()
    assert "\\toprule" in latex and "$55.00 \\pm 2.48$" in latex and "\\quad paper &  & 54.59 & 63.39 & 68.85" in latex
    first = (tmp_path / "out" / "table1.csv").read_text().splitlines()[1]
    assert first == "AlexNet,cifar10,CM,10,55,2.484,3,54.59,0.41"
    again = report.write(grid, tmp_path / "again", time_inference=False)
    assert [file.name for file in again] == [file.name for file in files]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(files, again, strict=True))


def test_flags_that_differ_along_a_row_are_told(tmp_path):
    """Its curve and area join different settings, which must be stated."""
    made = [run(tmp_path / f"{seed}{percent}", "Random", seed, {percent: 50 + percent / 10}, **config)
            for seed in (1, 2) for percent, config in ((10, {"train_epochs": 12, "lr_task": 0.1}),
                                                       (40, {"train_epochs": 12.0, "lr_task": 0.1}),
                                                       (100, {"train_epochs": 24, "lr_task": 0.1}))]  # fmt: skip
    made += [run(tmp_path / "kd", "KD", 1, {10: 60, 100: 61})]
    made += [
        run(tmp_path / f"en{wd}", "EnCoDe", 1, {wd: 60}, sampler="vae", schedule=word)
        for wd, word in ((10, "step"), (40, "onecycle"))
    ]
    told = "and its area where that goes over them, join several settings:\n- AlexNet on cifar10, CM: --train_epochs"
    text = report.write(made, tmp_path / "out", time_inference=False)[0].read_text()
    assert f"{told} 12 at 10% 40%, 24 at 100%\n" in text and text.count("--train_epochs") == 1
    assert "- AlexNet on cifar10, EnCoDe†: --schedule step at 10%, onecycle at 40%\n\n" in text
    assert "along a row" not in report.write(made[-3:-2], tmp_path / "one", time_inference=False)[0].read_text()


def test_a_name_that_runs_are_given_makes_one_row_of_several_recipes(tmp_path):
    """The student alone has a different weight decay at each budget at which it was tuned."""
    plain = [run(tmp_path / f"cm{seed}", "Random", seed, {10: 55, 40: 60}) for seed in (1, 2)]
    kd = [run(tmp_path / f"kd{seed}", "KD", seed, {10: 65}) for seed in (1, 2)]
    tuned = {run(tmp_path / f"tuned{at}-{seed}", "Random", seed, {at: 61}, weight_decay=at / 1000): "CM (tuned)"
             for seed in (1, 2) for at in (10, 40)}  # fmt: skip
    given = tuned | {kd[0]: "a teacher's"}
    edit(kd[0], "results.csv", ",mse,", ",kl,")  # which no other row's name may mention
    rows = results.read([*plain, *kd, *tuned], names=given).rows
    found = {label: sorted(zip(of["seed"], of["percent"], strict=True)) for label, of in rows.groupby("label")}
    each = [(1, 10), (1, 40), (2, 10), (2, 40)]
    assert found == {"CM": each, "CM (tuned)": each, "CM+KD†": [(2, 10)], "a teacher's†": [(1, 10)]}
    edit(next(iter(tuned)), "config.json", '"weight_decay": 0.01', '"weight_decay": 0.02')
    with pytest.raises(InputError, match=r"are both CM \(tuned\) of AlexNet on cifar10 at 10% but differ in --wei"):
        results.read([*plain, *kd, *tuned], names=given)


def test_a_given_name_is_of_the_student_not_of_its_fair_teacher(tmp_path):
    one = run(tmp_path / "kd", "KD", 1, {10: 65})
    edit(one, "results.csv", "teacher_labels,seed", "teacher_labels,teacher_accuracy,seed")
    edit(one, "results.csv", ",all,", ",labeled,70,")
    assert list(results.read([one], names={one: "mine"}).rows["label"]) == ["Baseline", "mine"]


def test_names_are_given_behind_the_runs(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(report, "write", lambda *given: seen.append(given) or [tmp_path / "a"])
    (tmp_path / "a").touch()
    report.main(["r1", "b", "--name", "CM", "a", "b", "--name", "CM+KD", "c", "--mixed"])
    folders, *_, names = seen[0]
    assert [str(each) for each in folders] == ["r1", "b", "a", "c"]
    assert {str(run): name for run, name in names.items()} == {"a": "CM", "b": "CM", "c": "CM+KD"}
    for words, line in (
        (["r1", "--name", "CM"], "--name CM: names no run; use --name ROW RUN ..."),
        (["r1", "--name", "CM", "a", "--name", "KD", "a"], "--name KD a: was named CM before; a run has one name"),
        ([], "name the run folders"),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
            report.main(words)


def test_a_bar_in_a_name_is_no_column(tmp_path):
    one = run(tmp_path / "a", "Random", 1, {10: 55}, dataset="a|b")
    line = report.write([one], tmp_path / "out", time_inference=False)[0].read_text().splitlines()[0]
    assert line.startswith(r"| AlexNet, a\|b: test accuracy, % | 10%")


def test_missing_cells_stay_blank_and_two_seeds_have_no_interval(tmp_path):
    two = [run(tmp_path / name, "Random", seed, {10: 55 + seed}) for seed, name in enumerate("xy")]
    text = report.write(two, tmp_path / "two", time_inference=False)[0].read_text()
    assert "| 55.50 (n=2) [54.59, +0.91] |" in text and "$55.50$" in (tmp_path / "two" / "table1.tex").read_text()
    report.write([run(tmp_path / "one", "Random", 1, {10: 55})], tmp_path / "out", time_inference=False)
    runs = [run(tmp_path / "a", "Random", 1, {10: 55}), run(tmp_path / "b", "KD", 1, {10: 60, 40: 64.5})]
    text = report.write(runs, tmp_path / "out", time_inference=False)[0].read_text()
    cm, kd = text.splitlines()[2:4]
    assert [cell.strip() for cell in cm.split("|")[2:-1]] == ["55.00 (n=1) [54.59, +0.41]", ""]
    assert "64.50 (n=1) [63.57, +0.93]" in kd
    assert (
        "takes two common seeds of two rows, and differences that vary"
        in (tmp_path / "out" / "statistics.md").read_text()
    )


def test_flags_added_later_do_not_keep_runs_apart_but_those_both_have_do(tmp_path):
    old = run(tmp_path / "old", "KD", 1, {10: 60}, amp="off", recipe="none", data="f00")
    new = run(tmp_path / "new", "KD", 2, {10: 61}, patience=3, amp="bf16", recipe="short", made_with=[sitting()])
    assert results.read([old, new]).rows["label"].unique().tolist() == ["CM+KD†"]
    third = run(tmp_path / "third", "KD", 3, {10: 61}, patience=4, made_with=[sitting()])
    assert "new and" in refused(old, new, third) and "--patience 3 and 4" in refused(old, new, third)
    assert "--amp off and bf16" in refused(
        old, run(tmp_path / "b", "KD", 4, {10: 60}, amp="bf16")
    )  # both without record


def test_a_run_from_before_a_flag_counts_as_what_was_done_then(tmp_path):
    """Regression: a run without the flag and one with another value of it were averaged."""
    old = run(tmp_path / "old", "Random", 1, {10: 54})
    for flag, usual, other in (("shift", 0, 4), ("fold_bn", False, True), ("cutout", 0, 16)):
        same = run(tmp_path / f"{flag}-same", "Random", 2, {10: 55}, **{flag: usual})
        assert results.read([old, same]).rows["label"].tolist() == ["CM", "CM"]
        unlike = run(tmp_path / f"{flag}-unlike", "Random", 2, {10: 55}, **{flag: other})
        assert f"--{flag} {usual} and {other}" in refused(old, unlike)


def test_old_and_new_columns_of_one_configuration_are_one_row(tmp_path):
    old = run(tmp_path / "old", "KD", 1, {10: 60})  # without feature_loss and sampler_input
    new = run(tmp_path / "new", "KD", 2, {10: 61})
    columns = ["sampler_input", "feature_loss"]  # of the later ones
    assert {*columns} <= VARIANTS.keys() - {*HEADER.split(",")}
    edit(new, "results.csv", HEADER, f"{HEADER},{','.join(columns)}")
    edit(new, "results.csv", ",61\n", ",61,,mse\n")
    assert results.read([old, new]).rows["label"].tolist() == ["CM+KD†", "CM+KD†"]
    edit(new, "results.csv", ",mse\n", ",cosine\n")
    assert results.read([old, new]).rows["label"].tolist() == ["CM+KD†", "CM+KD (cosine)†"]
    assert results.read([new]).rows["label"].tolist() == ["CM+KD†"]  # no other row to distinguish it from
    bare = run(tmp_path / "bare", "EnCoDe", 1, {10: 60}, sampler="vae")  # from before there were variants
    lines = [line.split(",") for line in (bare / "results.csv").read_text().splitlines()]
    (bare / "results.csv").write_text("\n".join(",".join(line[:4] + line[8:]) for line in lines) + "\n")
    whole = run(tmp_path / "whole", "EnCoDe", 2, {10: 60}, sampler="vae")
    by_chance = run(tmp_path / "random", "EnCoDe", 2, {10: 60}, sampler="random")
    labels = results.read([bare, whole, by_chance]).rows["label"].tolist()
    assert labels == ["EnCoDe†", "EnCoDe†", "EnCoDe (random)†"]


def test_a_value_that_two_flags_have_is_named_with_its_flag(tmp_path):
    plain, features, logits = (run(tmp_path / name, "KD", 1, {10: 60}) for name in ("plain", "features", "logits"))
    for folder, value in ((plain, "mse"), (features, "none"), (logits, "mse")):
        edit(folder, "results.csv", HEADER, HEADER + ",feature_loss")
        edit(folder, "results.csv", ",60\n", f",60,{value}\n")
    edit(logits, "results.csv", "labeled,mse,all", "labeled,none,all")
    labels = results.read([plain, features, logits]).rows["label"].tolist()
    assert labels == ["CM+KD†", "CM+KD (feature_loss none)†", "CM+KD (logit_loss none)†"]


def test_a_row_may_come_from_several_runs_percents_rising(tmp_path):
    full = run(tmp_path / "full", "Random", 1, {100: 69}, train_epochs=12)
    report.write([full, run(tmp_path / "part", "Random", 1, {10: 55, 40: 62})], tmp_path / "out", time_inference=False)
    cells = [line.split(",")[2:5] for line in (tmp_path / "out" / "table1.csv").read_text().splitlines()[1:]]
    assert cells == [["CM", "10", "55"], ["CM", "40", "62"], ["CM", "100", "69"]]


def test_variants_of_a_method_are_rows_of_their_own(tmp_path):
    runs = [run(tmp_path / "a", "EnCoDe", 1, {10: 58}, sampler="vae")]
    runs += [run(tmp_path / "b", "EnCoDe", 1, {10: 60}, sampler="teacher_confidence")]
    runs += [run(tmp_path / "c", "Single", 1, {100: 69}, network="student")]
    runs += [run(tmp_path / "d", "Single", 1, {100: 80}, network="teacher")]
    found = results.read(runs)
    assert found.rows["label"].tolist() == ["Single teacher", "Single", "EnCoDe†", "EnCoDe (teacher_confidence)†"]
    assert tables.cells(found)["paper"].replace(np.nan, None).tolist() == [80.04, 68.85, 58.01, None]


def test_who_was_asked_for_labels_is_named_though_all_runs_share_it(tmp_path):
    """The paper's CM has random labels: without the name its number would stand beside margin's."""
    found = results.read([run(tmp_path / f"m{seed}", "Random", seed, {10: 60}, sampler="margin") for seed in (1, 2)])
    assert found.rows["label"].unique().tolist() == ["CM (margin)"]
    assert results.paper_curve(found, ALEXNET, found.rows["label"][0]).empty
    for sampler, label in (
        ("vae", "EnCoDe†"),
        ("discriminator", "EnCoDe (discriminator)†"),
        ("random", "EnCoDe (random)†"),
    ):
        found = results.read([run(tmp_path / sampler, "EnCoDe", 1, {10: 60}, sampler=sampler)])
        assert found.rows["label"].tolist() == [label]


def test_a_percent_of_other_than_the_papers_images_is_beside_no_number_of_it(tmp_path):
    found = results.read([run(tmp_path / "a", "Random", 1, {10: 58}, num_images=20000)])
    assert results.paper_curve(found, ALEXNET, found.rows["label"][0]).empty
    found = results.read([run(tmp_path / "b", "Random", 1, {10: 58}, num_images=50000)])
    assert results.paper_curve(found, ALEXNET, "CM")[10] == 54.59


def test_the_paper_calls_vgg_by_its_depth(tmp_path):
    folder = edit(run(tmp_path / "a", "Random", 1, {10: 58}), "results.csv", "AlexNet", "VGG")
    found = results.read([folder])
    assert results.paper_curve(found, ("VGG", "cifar10"), "CM")[10] == 58.53


def test_area_is_the_mean_height_of_the_curve(grid):
    rows = results.read(grid).rows
    # KD, seed 1: (60 + 66) / 2 * 40 + (66 + 71.5) / 2 * 50, over 90
    assert statistics.areas(rows)["CM+KD†", 1] == pytest.approx((63 * 40 + 68.75 * 50) / 90)


def test_a_run_of_few_budgets_does_not_shorten_the_others_curves(grid, tmp_path):
    whole = statistics.areas(results.read(grid).rows)
    grid.append(run(tmp_path / "baseline", "Random", 1, {1: 30, 5: 40}, network="teacher"))
    assert statistics.areas(results.read(grid).rows).equals(whole)
    two = [run(tmp_path / "two", "Random", 1, {50: 60, 100: 70}), run(tmp_path / "one", "Single", 1, {100: 69})]
    assert statistics.areas(results.read(two).rows).to_dict() == {("CM", 1): 65}


def test_an_unfinished_run_shortens_no_curve_and_is_named(grid, tmp_path):
    """Regression: a fourth seed with two budgets silently removed the third from all rows' areas."""
    whole = statistics.areas(results.read(grid).rows)
    said = "Over 10%, 50%, 100%, which all of these runs have."
    assert f"{said}\n" in claims(results.read(grid))
    grid += [run(tmp_path / f"kd{seed}", "KD", seed, {10: 90, 50: 90}) for seed in (4, 5)]
    found = results.read(grid)
    assert statistics.areas(found.rows).sort_index().equals(whole.sort_index())
    left_out = "No area, with fewer percents than their row or than half of all: CM+KD† (4-5)."
    assert f"{said} {left_out}\n" in claims(found)


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])


def test_paired_tests_use_the_seeds_both_have(grid, tmp_path):
    grid.append(run(tmp_path / "cm4", "Random", 4, {10: 90, 50: 90, 100: 90}))
    table = statistics.paired_tests(results.read(grid), ALEXNET).set_index(["row", "against"])
    assert (table["n"] == 3).all()  # seed 4 has no partner
    # CM less KD at the seeds 1, 2, 3: -5, -5, -5 at 10%; -3, -2, -4 at 50%; -3.5 at 100%
    areas = [((-5 + at50) / 2 * 40 + (at50 - 3.5) / 2 * 50) / 90 for at50 in (-3, -2, -4)]
    t = np.mean(areas) / (np.std(areas, ddof=1) / math.sqrt(3))
    assert table.loc[("CM", "CM+KD†"), "difference"] == pytest.approx(np.mean(areas))
    assert table.loc[("CM", "CM+KD†"), "p"] == pytest.approx(1 - abs(t) / math.sqrt(t * t + 2))  # Student's t, 2 d.f.


def test_a_paired_test_that_cannot_be_made_is_blank(grid, tmp_path):
    grid.append(run(tmp_path / "baseline", "Random", 1, {10: 71, 50: 80, 100: 81}, network="teacher"))
    table = statistics.paired_tests(results.read(grid), ALEXNET).set_index(["row", "against"])
    # CM+KD less EnCoDe is the same at every seed: 2 at 10%, -4 at 50%, -0.5 at 100%; the areas' up to rounding
    same = table.loc[("CM+KD†", "EnCoDe†")]
    assert same["difference"] == pytest.approx((-1 * 40 - 2.25 * 50) / 90) and same["n"] == 3
    assert math.isnan(same["p"]) and math.isnan(same["p_holm"])
    alone = table.loc[("Baseline", "CM")]
    # seed 1: 16 at 10%, 17 at 50%, 13 at 100%
    assert alone["difference"] == pytest.approx((16.5 * 40 + 15 * 50) / 90) and alone["n"] == 1
    assert math.isnan(alone["p"])
    # Holm counts the two existing tests
    tests = table["p"].dropna()
    assert len(tests) == 2 and table.loc[tests.idxmin(), "p_holm"] == pytest.approx(2 * tests.min())
    assert table.loc[tests.idxmax(), "p_holm"] == pytest.approx(tests.max())
    text = claims(results.read(grid))
    line = next(line for line in text.splitlines() if line.startswith("| CM+KD†   | EnCoDe†"))
    assert [cell.strip() for cell in line.split("|")[3:10]] == ["-1.69", "", "", "3", "", "", ""]


def test_an_effect_has_its_interval_and_its_size_by_hand():
    half, d = statistics.effect([1.0, 2.0, 3.0])
    assert half == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4) and d == pytest.approx(2.0)
    assert all(math.isnan(value) for value in (*statistics.effect([1.0, 2.0]), *statistics.effect([1.0, 1.0, 1.0])))


def test_one_test_that_is_there_twice_is_corrected_for_once(tmp_path):
    """Rows equal at 10% have an area of half their differences at 40%; Holm must not count both."""
    differences = {"margin": ((0, 0, 0), (1, 2, 4)), "vae": ((1, 5, 2), (9, 9, 8))}  # at 10 and 40%, by seed
    runs = [run(tmp_path / f"kd{seed}", "KD", seed, {10: 50, 40: 60}) for seed in (1, 2, 3)]
    for sampler, (first, second) in differences.items():
        for seed, (a, b) in enumerate(zip(first, second, strict=True), 1):
            accuracies = {10: 50 + a, 40: 60 + b}
            runs.append(run(tmp_path / f"{sampler}{seed}", "EnCoDe", seed, accuracies, sampler=sampler))
    table = statistics.contrasts(results.read(runs), ALEXNET, "CM+KD†").set_index(["row", "at"])
    once = table.loc[[("EnCoDe (margin)†", 40), ("EnCoDe†", 10), ("EnCoDe†", 40), ("EnCoDe†", "area")]]
    assert once["p_holm"].tolist() == pytest.approx(statistics.holm(once["p"].tolist()))
    assert table.loc[("EnCoDe (margin)†", "area"), "p_holm"] == table.loc[("EnCoDe (margin)†", 40), "p_holm"]


def test_unlike_rows_whose_differences_are_proportional_are_two_tests(tmp_path):
    """With two seeds that happens by chance: p depends only on the ratio of the two differences."""
    runs = [run(tmp_path / f"kd{seed}", "KD", seed, {10: 50}) for seed in (1, 2)]
    for sampler, added in {"margin": (1, 3), "vae": (2, 6), "entropy": (1, 3)}.items():
        for seed, more in enumerate(added, 1):
            runs.append(run(tmp_path / f"{sampler}{seed}", "EnCoDe", seed, {10: 50 + more}, sampler=sampler))
    table = statistics.contrasts(results.read(runs), ALEXNET, "CM+KD†").set_index(["row", "at"])
    assert table["p"].nunique() == 1 and len(table) == 3
    assert table["p_holm"].tolist() == pytest.approx([2 * table["p"].iloc[0]] * 3)  # entropy repeats margin


def test_the_same_differences_at_unlike_budgets_are_two_tests(tmp_path):
    """Accuracies are multiples of one image: that happens by chance, and one test too few was corrected for."""
    differences = {"margin": ((1, 2, 4), (0, 1, 0)), "vae": ((0, 5, 1), (1, 2, 4))}  # at 10 and 40%, by seed
    runs = [run(tmp_path / f"kd{seed}", "KD", seed, {10: 50, 40: 60}) for seed in (1, 2, 3)]
    for sampler, (first, second) in differences.items():
        for seed, (a, b) in enumerate(zip(first, second, strict=True), 1):
            runs.append(run(tmp_path / f"{sampler}{seed}", "EnCoDe", seed, {10: 50 + a, 40: 60 + b}, sampler=sampler))
    table = statistics.contrasts(results.read(runs), ALEXNET, "CM+KD†")
    assert len(table) == 6 and table["p"].nunique() == 5
    assert table["p_holm"].tolist() == pytest.approx(statistics.holm(table["p"].tolist()))


def test_rows_of_unlike_numbers_of_seeds_are_corrected_together(tmp_path):
    """Regression: with pandas 2 the report ended in an IndexError where a later row had fewer seeds."""
    runs = [run(tmp_path / f"kd{seed}", "KD", seed, {10: 50}) for seed in (1, 2, 3, 4)]
    for sampler, added in {"margin": (1, 3, 4), "vae": (2, 7), "entropy": (1, 5, 6, 8)}.items():
        for seed, more in enumerate(added, 1):
            runs.append(run(tmp_path / f"{sampler}{seed}", "EnCoDe", seed, {10: 50 + more}, sampler=sampler))
    table = statistics.contrasts(results.read(runs), ALEXNET, "CM+KD†")
    assert table["n"].tolist() == [3, 2, 4]
    assert table["p_holm"].tolist() == pytest.approx(statistics.holm(table["p"].tolist()))


def test_rows_are_tested_against_one_at_each_budget_and_corrected_together(tmp_path):
    differences = {"margin": ((1, 2, 3), (-1, 0, 1)), "vae": ((0, 1, 5), (4, 4, 4))}  # at 10 and 40%, by seed
    runs = [run(tmp_path / f"kd{seed}", "KD", seed, {10: 50, 40: 60}) for seed in (1, 2, 3)]
    for sampler, (first, second) in differences.items():
        for seed, (a, b) in enumerate(zip(first, second, strict=True), 1):
            folder, accuracies = tmp_path / f"{sampler}{seed}", {10: 50 + a, 40: 60 + b}
            runs.append(run(folder, "EnCoDe", seed, accuracies, sampler=sampler))
    table = statistics.contrasts(results.read(runs), ALEXNET, "CM+KD†").set_index(["row", "at"])
    assert list(table.index) == [(row, at) for row in ("EnCoDe (margin)†", "EnCoDe†") for at in (10, 40, "area")]
    margin = table.loc[("EnCoDe (margin)†", 10)]
    t = 2 * math.sqrt(3)  # 2 on average, its standard error 1 / sqrt(3)
    assert margin["p"] == pytest.approx(1 - t / math.sqrt(t * t + 2)) and margin["d"] == pytest.approx(2)
    assert table.loc[("EnCoDe (margin)†", "area"), "difference"] == pytest.approx(1)
    assert math.isnan(table.loc[("EnCoDe†", 40), "p"])  # 4 at each seed: no test, so Holm counts five
    assert table["p_holm"].dropna().min() == pytest.approx(5 * table["p"].min())
    assert table.loc[("EnCoDe (margin)†", 40), "no more than"] == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4)
    output = tmp_path / "out"
    report.main([*map(str, runs), "--no-inference", "--against", "CM+KD", "--output", str(output)])
    text = (output / "statistics.md").read_text(encoding="utf-8")
    assert "each row against CM+KD†" in text and "| EnCoDe (margin)† | 10%  | 2.00" in text
    with pytest.raises(
        InputError, match=r"--against 'KD': no such row; there are CM\+KD†, EnCoDe \(margin\)†, EnCoDe†"
    ):
        report.main([*map(str, runs), "--no-inference", "--against", "KD", "--output", str(tmp_path / "no")])
    assert not (tmp_path / "no").exists()


def test_a_difference_that_is_significant_excludes_nothing(tmp_path):
    runs = [run(tmp_path / f"cm{seed}", "Random", seed, {10: 50, 40: 60}) for seed in (1, 2, 3)]
    runs += [run(tmp_path / f"kd{s}", "KD", s, {10: 60 + s / 9, 40: 70 + s / 9}) for s in (1, 2, 3)]
    table = statistics.paired_tests(results.read(runs), ALEXNET)
    assert table["p_holm"].item() < 0.05 and math.isnan(table["no more than"].item())


def test_what_a_test_leaves_possible_counts_either_way(tmp_path):
    """CM less KD is -3, -1 and 1: by its interval KD may still be 5.97 better, or 3.97 worse."""
    runs = [run(tmp_path / f"cm{seed}", "Random", seed, {10: 55 + 2 * seed, 40: 55 + 2 * seed}) for seed in (1, 2, 3)]
    runs += [run(tmp_path / f"kd{seed}", "KD", seed, {10: 60, 40: 60}) for seed in (1, 2, 3)]
    table = statistics.paired_tests(results.read(runs), ALEXNET)
    half = 4.30265 * 2 / math.sqrt(3)
    assert table["difference"].item() == pytest.approx(-1) and table["±"].item() == pytest.approx(half, abs=1e-4)
    assert table["no more than"].item() == pytest.approx(1 + half, abs=1e-4)


def test_penalties_count_the_budgets_at_which_a_row_is_beaten(tmp_path):
    runs = []
    for seed, less in ((1, 0.0), (2, 0.3), (3, -0.3)):
        runs.append(run(tmp_path / f"cm{seed}", "Random", seed, {10: 55, 50: 60, 60: 62, 100: 70}))
        runs.append(run(tmp_path / f"kd{seed}", "KD", seed, {10: 57, 50: 62 + less, 60: 61 + less, 100: 70 + less}))
    runs.append(run(tmp_path / "one", "Single", 1, {100: 69}))
    matrix, unlike = statistics.penalties(results.read(runs))
    # KD less CM is 2 at each seed at 10%: no test. 2 +- 0.3 at 50%: t = 2 sqrt(3) / 0.3 = 11.5, p = 0.007; -1 +- 0.3
    # at 60%: t = -5.8, p = 0.029; 0 +- 0.3 at 100%: p = 1. So each beats the other at one budget of three
    assert matrix.loc["CM+KD†", "CM"] == pytest.approx(1 / 3) and matrix.loc["CM", "CM+KD†"] == pytest.approx(1 / 3)
    assert matrix.loc["mean", "CM"] == pytest.approx(1 / 3)  # Single has one seed: no test, not a draw
    assert math.isnan(matrix.loc["CM", "CM"]) and math.isnan(matrix.loc["Single", "CM"])
    assert unlike == {("CM", "CM+KD†"): frozenset(), ("CM+KD†", "CM"): frozenset()}


def test_penalties_pair_the_runs_of_a_seed(tmp_path):
    """KD is 2.1, 1.9 and 2.0 above CM at seeds 3, 4 and 5, which differ by ten; seed 2 has no KD, seed 1 no CM."""
    runs = [run(tmp_path / f"cm{seed}", "Random", seed, {10: 40 + 10 * seed}) for seed in (2, 3, 4, 5)]
    for seed, more in ((3, 2.1), (4, 1.9), (5, 2.0), (1, 2.0)):
        runs.append(run(tmp_path / f"kd{seed}", "KD", seed, {10: 40 + 10 * seed + more}))
    matrix, _ = statistics.penalties(results.read(runs))
    assert matrix.loc["CM+KD†", "CM"] == 1 and matrix.loc["CM", "CM+KD†"] == 0


def test_penalties_add_up_over_settings(tmp_path):
    """KD beats CM at one budget of two on CIFAR-10, and at the only one on SVHN, in any order."""
    runs = []
    for seed, less in ((1, 0.0), (2, 0.3), (3, -0.3)):
        for data, ours, theirs in (("cifar10", {10: 55, 50: 60}, {10: 57 + less, 50: 60 + less}),
                                   ("svhn", {10: 70}, {10: 75 + less})):  # fmt: skip
            runs.append(run(tmp_path / f"{data}-cm{seed}", "Random", seed, ours, dataset=data))
            runs.append(run(tmp_path / f"{data}-kd{seed}", "KD", seed, theirs, dataset=data))
    for order in (runs, runs[::-1]):
        matrix, _ = statistics.penalties(results.read(order))
        assert matrix.loc["CM+KD†", "CM"] == pytest.approx(1 / 2 + 1) and matrix.loc["CM", "CM+KD†"] == 0


def test_p_by_hand():
    # mean 1, standard error 1 / sqrt(3), t = sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    assert statistics.paired_p([0, 1, 2]) == pytest.approx(1 - math.sqrt(3 / 5))
    assert math.isnan(statistics.paired_p([1])) and math.isnan(statistics.paired_p([0.3, 0.1 + 0.2, 0.3]))


def test_label_efficiency_interpolates(grid):
    table = statistics.label_efficiency(results.read(grid).rows).set_index(["row", "reaches what"])
    # EnCoDe goes from 58 at 10% to 70 at 50%; CM's last is 68
    assert table.loc[("EnCoDe†", "CM"), "with percent"] == pytest.approx(10 + 40 * 10 / 12)
    assert math.isnan(table.loc[("CM", "EnCoDe†"), "with percent"])


def test_label_efficiency_is_for_what_a_row_reaches_at_last(tmp_path):
    """CM falls from 62 to 60; KD passes 60 halfway between 10 and 50%."""
    runs = [
        run(tmp_path / "cm", "Random", 1, {10: 50, 50: 62, 100: 60}),
        run(tmp_path / "kd", "KD", 1, {10: 58, 50: 62}),
    ]
    table = statistics.label_efficiency(results.read(runs).rows).set_index(["row", "reaches what"])
    line = table.loc[("CM+KD†", "CM")]
    assert (line["has at percent"], line["accuracy"], line["with percent"]) == (100, 60, pytest.approx(30))


def test_two_rows_that_are_equal_are_one_in_the_correction_whatever_their_order(tmp_path):
    """Regression: C repeats A; its test against B has A's with the other sign if C was named after B."""
    accuracies = {"A": (50, 51.3, 52.9, 50.7), "B": (53, 55, 56.3, 52.2), "C": (50, 51.3, 52.9, 50.7)}
    names, corrected = {}, []
    for label, values in accuracies.items():
        runs = [run(tmp_path / f"{label}{n}", "Random", n, {10: v, 40: v + 10}) for n, v in enumerate(values)]
        names |= dict.fromkeys(runs, f"CM ({label})")
    for order in ("ABC", "ACB"):
        there = sorted(names, key=lambda path, order=order: order.index(path.name[0]))
        table = statistics.paired_tests(results.read(there, names=names), ALEXNET)
        corrected.append(sorted(table["p_holm"].dropna().tolist()))
    assert corrected[0] == pytest.approx(corrected[1]) and len(corrected[0]) == 2


def test_rows_of_one_budget_have_no_label_efficiency(tmp_path):
    """Regression: every row that was the better one needed "≤ 10%"."""
    runs = [run(tmp_path / "cm", "Random", 1, {10: 50}), run(tmp_path / "kd", "KD", 1, {10: 58})]
    assert "(needs two budgets, and two rows" in claims(results.read(runs)).split("Label efficiency")[1]
    runs.append(run(tmp_path / "later", "EnCoDe", 1, {40: 57}))
    assert "≤ 10%" in claims(results.read(runs)).split("Label efficiency")[1]  # KD has it with fewer


def test_label_efficiency_is_a_matrix_without_blank_lines(grid, tmp_path):
    grid.append(run(tmp_path / "low", "Single", 1, {100: 20}))
    lines = claims(results.read(grid)).split("Label efficiency")[1].split("## All")[0].splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert table == [
        ["row", "Single: 20.00 at 100%", "CM: 68.00 at 100%", "CM+KD†: 71.50 at 100%"],  # no row reaches EnCoDe's 72
        ["CM", "≤ 10%", "", ""],  # its fewest labels suffice
        ["CM+KD†", "≤ 10%", "68.2%", ""],  # 66 at 50%, 71.5 at 100%: 50 + 50 * 2 / 5.5
        ["EnCoDe†", "≤ 10%", "43.3%", "87.5%"],
    ]


def test_penalties_leave_out_rows_without_a_test(tmp_path):
    runs = [run(tmp_path / "one", "Single", 1, {100: 69})]
    for seed, less in ((1, 0.0), (2, 0.3), (3, -0.3)):
        runs.append(run(tmp_path / f"cm{seed}", "Random", seed, {10: 55}))
        runs.append(run(tmp_path / f"kd{seed}", "KD", seed, {10: 57 + less}))
    lines = claims(results.read(runs)).split("Pairwise penalty")[1].splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert table == [["", "CM", "CM+KD†"], ["CM", "", "0"], ["CM+KD†", "1.00", ""], ["mean", "1.00", "0"]]


def test_an_oracle_is_named_and_never_wins(tmp_path):
    """It cannot be used in practice: no bold in a paper's table, no part in how often a row is beaten."""
    runs = []
    for seed, less in ((1, 0.0), (2, 0.3), (3, -0.3)):
        runs.append(run(tmp_path / f"cm{seed}", "Random", seed, {10: 55}))
        runs.append(run(tmp_path / f"kd{seed}", "KD", seed, {10: 57 + less}))
        runs.append(run(tmp_path / f"oracle{seed}", "KD", seed, {10: 60 - less}, sampler="balanced"))
    found = results.read(runs)
    assert list(dict.fromkeys(found.rows["label"])) == ["CM", "CM+KD†", "CM+KD (oracle: balanced)†"]
    alone = results.read(runs[2::3])
    assert set(alone.rows["label"]) == {"CM+KD (oracle: balanced)†"}  # with no row to distinguish it from
    matrix, _ = statistics.penalties(found)
    assert list(matrix) == ["CM", "CM+KD†"] and matrix.loc["mean", "CM+KD†"] == 0
    report.write(runs, tmp_path / "out", time_inference=False)
    text = (tmp_path / "out" / "table1.tex").read_text(encoding="utf-8")
    assert re.findall(r"mathbf\{(.*?)\}", text) == ["57.00"]


def test_latex_has_what_a_paper_needs(grid, tmp_path):
    grid.append(run(tmp_path / "teacher", "Random", 1, {10: 71.5, 50: 80}, network="teacher"))
    grid.append(run(tmp_path / "own", "EnCoDe", 4, {10: 59}, sampler="teacher_confidence"))
    report.write(grid, tmp_path / "out", time_inference=False)
    text = (tmp_path / "out" / "table1.tex").read_text(encoding="utf-8")
    lines = {line.split(" & ")[0]: line.split(" & ")[1:] for line in text.splitlines() if " & " in line}
    assert lines[""] == ["$n$", "10\\%", "50\\%", "100\\% \\\\"]
    assert lines["Baseline"] == ["1", "$71.50$", "$80.00$", " \\\\"]  # a teacher, not a student: not in bold
    assert lines["CM"][:2] == ["3", "$55.00 \\pm 2.48$"]
    assert lines["CM+KD$^\\dagger$"][1] == "$\\mathbf{60.00} \\pm 2.48$"
    assert lines["EnCoDe$^\\dagger$"][1:3] == ["$58.00 \\pm 2.48$", "$\\mathbf{70.00} \\pm 2.48$"]
    assert lines["EnCoDe (teacher\\_confidence)$^\\dagger$"][:2] == ["1", "$59.00$"]
    assert text.count("\\mathbf") == 3 and text.count("{") == text.count("}")
    assert text.count("\\begin{") == text.count("\\end{") == 2 and "\\label{tab:alexnet-cifar10}" in text
    assert "\\caption{Test accuracy (\\%) of AlexNet on cifar10 by share of labels: mean $\\pm$ half" in text
    assert "$^\\dagger$ distilled from" in text
    assert latex.escape("a_b & 5% {x}~\\") == "a\\_b \\& 5\\% \\{x\\}\\textasciitilde{}\\textbackslash{}"
    assert latex.escape("a<b|c>") == "a\\textless{}b\\textbar{}c\\textgreater{}"


def test_the_only_student_is_not_the_best(tmp_path):
    found = results.read([run(tmp_path / "a", "Random", 1, {10: 55, 40: 60}), run(tmp_path / "b", "KD", 1, {10: 58})])
    text = latex.table(found, ALEXNET, *tables._grid(tables.cells(found), ALEXNET))
    assert re.findall(r"mathbf\{(.*?)\}", text) == ["58.00"]  # at 40% there is one


def test_class_balance_counts_the_queries(grid, tmp_path):
    report.write(grid, tmp_path / "out", time_inference=False)
    lines = (tmp_path / "out" / "queries.csv").read_text().splitlines()
    assert lines[0] == "model,dataset,label,round,percent,class,name,images"
    assert "AlexNet,cifar10,EnCoDe†,1,50,0,0,1" in lines and "AlexNet,cifar10,EnCoDe†,1,50,1,1,2" in lines


def test_contact_sheet_and_inference_time_of_a_run(tmp_path, capsys):
    done = run(tmp_path / "digits-seed1", "Random", 1, {10: 60, 20: 70}, dataset="digits")
    report.main([str(done), "--output", str(tmp_path / "out"), "--data_dir", str(tmp_path)])
    assert (tmp_path / "out" / "queried-digits-seed1.png").read_bytes().startswith(b"\x89PNG")
    assert "queried-digits-seed1.png" in capsys.readouterr().out


def test_the_inference_times_ratio_is_students_median_by_teachers(monkeypatch):
    """By this clock the student takes 1, 1 and 9 seconds and the teacher 4, 4 and 2, in turns."""
    clock = iter([0, 1, 1, 5, 5, 14, 14, 18, 18, 19, 19, 21])
    monkeypatch.setattr(inference, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert inference.ratio("AlexNet", 10, 64, repeats=3) == 1 / 4 and next(clock, None) is None
