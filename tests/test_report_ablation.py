"""`--ablation`: runs of one row with different flags become separate rows, named by what most of them do not have."""

import pytest

from common import report
from common.errors import InputError
from common.report import ablation, results

from .reports import edit, run


def kd(tmp_path, name, seed=1, accuracy=60, **config):
    return run(tmp_path / name, "KD", seed, {10: accuracy}, temperature=4.0, feat_wt=500, **config)


def labels(*folders):
    return results.read(list(folders), ablation=True).rows.set_index("run")["label"].to_dict()


def test_a_row_is_named_by_the_flags_that_most_runs_do_not_have(tmp_path):
    """The plain name is that of the majority, wherever they are listed; the dagger stays at the end."""
    hot = [run(tmp_path / f"hot{seed}", "KD", seed, {10: 61}, temperature=8.0, feat_wt=500) for seed in (1, 2)]
    long = kd(tmp_path, "long", train_epochs=24, expt="long")
    base = [kd(tmp_path, f"base{seed}", seed, expt="base") for seed in (1, 2, 3)]
    found = labels(*hot, long, *base)
    assert [found[str(folder)] for folder in hot] == ["CM+KD (temperature 8)†"] * 2
    assert found[str(long)] == "CM+KD (train_epochs 24)†"
    assert {found[str(folder)] for folder in base} == {"CM+KD†"}


def test_two_changed_flags_are_both_named_and_of_equals_the_first_is_plain(tmp_path):
    base = kd(tmp_path, "base")
    other = run(tmp_path / "other", "KD", 1, {10: 61}, temperature=8.0, feat_wt=0)
    assert labels(base, other) == {str(base): "CM+KD†", str(other): "CM+KD (feat_wt 0, temperature 8)†"}
    assert labels(other, base)[str(base)] == "CM+KD (feat_wt 500, temperature 4)†"


def test_of_equals_the_plain_row_is_without_what_was_added(tmp_path):
    """Regression: runs with mixup come first by name and were called CM+KD, beside "CM+KD (mixup 0)"."""
    changes = ("mixup", 1.0, 0.0, "1"), ("cutout", 8, 0.0, "8"), ("fold_bn", True, False, "True")
    for number, (name, value, before, said) in enumerate(changes):
        new = run(tmp_path / f"{number}a", "KD", 1, {10: 61}, **{name: value})
        old = run(tmp_path / f"{number}b", "KD", 1, {10: 60}, **{name: before})
        assert labels(new, old) == {str(new): f"CM+KD ({name} {said})†", str(old): "CM+KD†"}


def test_each_setting_has_its_own_usual_value(tmp_path):
    """Three AlexNet runs on the pool must not make one of VGG's two, where both are usual, unusual."""
    pools = [edit(kd(tmp_path, f"pool{n}", n), "results.csv", ",labeled,mse,", ",pool,mse,") for n in (1, 2, 3)]
    vgg = [edit(kd(tmp_path, f"vgg{n}", n), "results.csv", "AlexNet,", "VGG,") for n in (1, 2)]
    assert set(labels(*pools, *vgg).values()) == {"CM+KD†"}


def test_a_variant_most_of_whose_runs_changed_more_says_so(tmp_path):
    """Regression: the pool with temperature 8 was "(pool)", the pool alone "(pool, temperature 4)"."""
    base = [kd(tmp_path, f"base{n}", n) for n in range(1, 5)]
    pool = edit(kd(tmp_path, "pool"), "results.csv", ",labeled,mse,", ",pool,mse,")
    both = [run(tmp_path / f"both{n}", "KD", n, {10: 61}, temperature=8.0, feat_wt=500) for n in (1, 2)]
    for folder in both:
        edit(folder, "results.csv", ",labeled,mse,", ",pool,mse,")
    found = labels(*base, pool, *both)
    assert {found[str(folder)] for folder in base} == {"CM+KD†"} and found[str(pool)] == "CM+KD (distill_on pool)†"
    assert {found[str(folder)] for folder in both} == {"CM+KD (distill_on pool, temperature 8)†"}


def test_one_value_written_twice_is_one(tmp_path):
    """A dictionary's 500 and the command line's 500.0; what is not a setting (where, which rounds) is not named."""
    first = run(tmp_path / "a", "KD", 1, {10: 60}, feat_wt=500, percents=[10], save_path="runs")
    other = run(tmp_path / "b", "KD", 2, {10: 60}, feat_wt=500.0, percents=[10, 20], save_path="elsewhere")
    assert set(labels(first, other).values()) == {"CM+KD†"}


def test_a_flag_that_came_later_counts_as_what_was_done_before(tmp_path):
    before, after = kd(tmp_path, "before", 1), kd(tmp_path, "after", 2, cutout=0)
    cut = kd(tmp_path, "cut", 1, cutout=8)
    assert labels(before, after, cut) == {
        str(before): "CM+KD†", str(after): "CM+KD†", str(cut): "CM+KD (cutout 8)†"
    }  # fmt: skip


def test_what_names_a_row_anyway_follows_the_most_too(tmp_path):
    """Of three runs on the pool and one on the labelled images the last is unusual; without the flag the three are."""
    pools = [edit(kd(tmp_path, f"pool{n}", n), "results.csv", ",labeled,mse,", ",pool,mse,") for n in (1, 2, 3)]
    odd = kd(tmp_path, "odd")
    found = labels(*pools, odd)
    assert found[str(odd)] == "CM+KD (distill_on labeled)†" and {found[str(folder)] for folder in pools} == {"CM+KD†"}
    plain = results.read([*pools, odd]).rows.set_index("run")["label"]
    assert plain[str(odd)] == "CM+KD†" and set(plain[list(map(str, pools))]) == {"CM+KD (pool)†"}


def test_a_strategy_is_named_by_itself_and_other_flags_with_their_names(tmp_path):
    margin = [run(tmp_path / f"m{seed}", "KD", seed, {10: 61}, sampler="margin") for seed in (1, 2)]
    base = kd(tmp_path, "base")
    assert labels(*margin, base) == {str(base): "CM+KD†", **{str(each): "CM+KD (margin)†" for each in margin}}


def test_a_run_without_the_column_has_the_usual_teacher_whatever_most_have(tmp_path):
    """Otherwise the dagger of a teacher that saw every label would be lost."""
    fair = [edit(kd(tmp_path, f"fair{n}", n), "results.csv", ",mse,all,", ",mse,labeled,") for n in (1, 2)]
    old = edit(kd(tmp_path, "old"), "results.csv", ",mse,all,", ",mse,,")
    found = results.read([*fair, old], ablation=True).rows.set_index("run")
    assert found.loc[str(old), "label"] == "CM+KD (teacher_labels all)†" and bool(found.loc[str(old), "shared_teacher"])
    assert set(found.loc[list(map(str, fair)), "label"]) == {"CM+KD"}


def test_it_is_for_who_asks_and_two_runs_of_a_seed_stay_refused(tmp_path):
    base, other = kd(tmp_path, "base"), kd(tmp_path, "other", train_epochs=24)
    with pytest.raises(InputError, match=r"differ in --train_epochs 2 and 24; report them apart, or --ablation makes"):
        results.read([base, other])
    with pytest.raises(InputError, match="with one seed"):
        labels(base, kd(tmp_path, "again"), other)


def test_the_report_tests_each_row_against_the_plain_one(tmp_path, monkeypatch, capsys):
    base = [kd(tmp_path, f"base{seed}", seed, 60 + seed) for seed in (1, 2, 3)]
    long = [kd(tmp_path, f"long{seed}", seed, 61 + seed + seed / 10, train_epochs=24) for seed in (1, 2, 3)]
    words = ["report", *map(str, base + long), "--ablation", "--against", "CM+KD†", "--no-inference"]
    monkeypatch.setattr("sys.argv", [*words, "--output", str(tmp_path / "out")])
    report.main()
    printed = capsys.readouterr().out
    assert "| CM+KD (train_epochs 24)† | 63.20 ± 2.73 (n=3) |" in " ".join(printed.split())
    assert "ablation.md" in printed and "Ablation</h2>" in (tmp_path / "out" / "report.html").read_text("utf-8")
    tests = (tmp_path / "out" / "statistics.md").read_text(encoding="utf-8")
    assert "| CM+KD (train_epochs 24)† | 10% | 1.20       | 0.248 |" in tests  # of 1.1, 1.2, 1.3


def test_validation_and_seconds_stand_beside_the_test_accuracy(tmp_path):
    """By hand; blank if a run has no validation accuracy or no timing.csv; no line for a fair teacher's rows."""
    base = [kd(tmp_path, f"base{seed}", seed, 60 + seed) for seed in (1, 2, 3)]
    for n, folder in enumerate(base):
        edit(folder, "results.csv", "percent,test_accuracy", "percent,val_accuracy,test_accuracy")
        edit(folder, "results.csv", f",10,{61 + n}", f",10,{50 + 2 * n},{61 + n}")
        (folder / "timing.csv").write_text(f"round,train_seconds,device\n0,{100 + n}.0,cpu\n")
    long = run(tmp_path / "long", "KD", 1, {10: 70, 20: 71}, temperature=4.0, feat_wt=500, train_epochs=24)
    (long / "timing.csv").write_text("round,train_seconds,device\n1,400.6,cpu\n0,200.4,cpu\n")
    found = results.read([*base, long], ablation=True)
    (part,), files = ablation.write(found, tmp_path)
    assert part.head == ["AlexNet, cifar10", "labels", "n", "validation, %", "test, %", "seconds"]
    assert part.rows == [
        ["CM+KD†", "10%", "3", "52.00 ± 4.97", "62.00 ± 2.48", "101"],
        ["CM+KD (train_epochs 24)†", "10%", "1", "", "70.00", "200"],
        ["CM+KD (train_epochs 24)†", "20%", "1", "", "71.00", "401"],
    ]
    assert "| 52.00 ± 4.97  | 62.00 ± 2.48 | 101     |" in files[0].read_text(encoding="utf-8")
    lines = files[1].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "model,dataset,label,percent,n,validation,validation_half_width,test,test_half_width,seconds"
    assert lines[1] == "AlexNet,cifar10,CM+KD†,10,3,52,4.968,62,2.484,101"
    (long / "timing.csv").unlink()
    assert ablation.write(found, tmp_path)[0][0].rows[1][-1] == ""
    edit(base[0], "timing.csv", "100.0", "soon")
    with pytest.raises(InputError, match=r"timing\.csv: line 2: train_seconds is 'soon'"):
        ablation.write(found, tmp_path)


def test_a_fair_teachers_accuracy_is_no_training_of_its_own_here(tmp_path):
    fair = kd(tmp_path, "fair", teacher_labels="labeled")
    edit(fair, "results.csv", ",seed,", ",teacher_accuracy,seed,")
    edit(fair, "results.csv", "labeled,mse,all,1,", "labeled,mse,labeled,72,1,")
    found = results.read([fair], ablation=True)
    assert found.rows["label"].tolist() == ["Baseline", "CM+KD"]
    assert [row[0] for part in ablation.write(found, tmp_path)[0] for row in part.rows] == ["CM+KD"]
