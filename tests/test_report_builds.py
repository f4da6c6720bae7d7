"""Builds of runs: named under the tables, and refused or marked where a test compares unlike runs."""

import re

import pytest

from common import report
from common.errors import InputError
from common.report import builds, results, statistics

from .reports import ALEXNET, COMMITS, TEACHERS, claims, made, run, sitting

CURVES = {1: {10: 60, 50: 66}, 2: {10: 61.5, 50: 66.2}, 3: {10: 59.7, 50: 65.6}}


def rows(tmp_path, ours, theirs, seeds=(1, 2, 3), labels="all"):
    """CM+KD and EnCoDe with records by seed: functions from the seed to the extra keys of config.json."""
    found = []
    for seed in seeds:
        lower = {percent: accuracy - seed for percent, accuracy in CURVES[seed].items()}
        found.append(run(tmp_path / f"kd{seed}", "KD", seed, lower, teacher_labels=labels, **ours(seed)))
        found.append(run(tmp_path / f"en{seed}", "EnCoDe", seed, CURVES[seed], "student", "vae", **theirs(seed)))
        for folder in found[-2:]:
            text = (folder / "results.csv").read_text()
            (folder / "results.csv").write_text(text.replace(",mse,all,", f",mse,{labels},"))
    return found


def by(commit=COMMITS[0], teacher=TEACHERS[0], **changes):
    """A seed's config.json with one sitting."""
    return lambda seed: {"made_with": [sitting(commit, **changes)], "teacher_sha256": teacher}


def nothing(seed):
    """What a run older than the records has."""
    return {}


def compared(folders, mixed=False):
    """The paired test of the two rows, and the penalties' marks."""
    found = results.read(folders)
    table = statistics.paired_tests(found, ALEXNET, mixed)
    return table, statistics.penalties(found, mixed)[1]


@pytest.mark.parametrize(
    "theirs, words",
    [
        (by(COMMITS[1]), r"commit \(0123456789 and fedcba9876\)"),
        (by(dirty=True), r"commit \(0123456789 and 0123456789-dirty\)"),
        (by(dirty="0123abcd"), r"commit \(0123456789 and 0123456789-dirty-0123abcd\)"),
        (by(amp="bf16"), r"amp \(off and bf16\)"),
        (by(teacher=TEACHERS[1]), r"teacher \(1111111111 and 2222222222\)"),
        (by(COMMITS[1], amp="bf16"), r"commit \(0123456789 and fedcba9876\), amp \(off and bf16\)"),
    ],
)
def test_a_test_of_unlike_runs_is_refused_by_name_and_mixed_marks_it(tmp_path, theirs, words):
    folders = rows(tmp_path, by(), theirs)
    words = rf"kd1 and .*en1 would be compared but differ in {words}; make them alike, or --mixed makes the test"
    found = results.read(folders)
    for compare in (lambda: statistics.paired_tests(found, ALEXNET), lambda: statistics.penalties(found)):
        with pytest.raises(InputError, match=words) as caught:
            compare()
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=words):
        report.main([*map(str, folders), "--no-inference", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()  # nothing is half written
    report.main([*map(str, folders), "--no-inference", "--mixed", "--output", str(tmp_path / "out")])
    text = (tmp_path / "out" / "statistics.md").read_text(encoding="utf-8")
    assert "| CM+KD† | EnCoDe† | -2.00‡ " in text
    assert "‡ runs of one seed differ in" in text and "one of two runs has no record" not in text
    matrix = text[text.index("Pairwise penalty") :].splitlines()
    assert [line.count("‡") for line in matrix if line.startswith("| EnCoDe†")] == [1]


@pytest.mark.parametrize(
    ("change", "words"), [({"num_val": 0}, "images (num_val)"), ({"val_labels": "bought"}, "images (val_labels)")]
)
def test_other_splits_are_not_paired(tmp_path, change, words):
    """Runs of one seed with other validation images have other labels: they are not pairs for a t-test."""
    usual = {"num_val": 5000}  # val_labels came later, and was extra before
    folders = rows(tmp_path, lambda seed: by()(seed) | usual, lambda seed: by()(seed) | usual | change)
    with pytest.raises(InputError, match=re.escape(f"would be compared but differ in {words}; make them alike")):
        compared(folders)
    assert compared(folders, mixed=True)[0]["unlike"].tolist() == [frozenset({"images"})]


def test_where_nothing_validates_it_does_not_matter_whose_labels_would(tmp_path):
    none = [lambda seed, word=word: by()(seed) | {"num_val": 0, "val_labels": word} for word in ("extra", "bought")]
    assert compared(rows(tmp_path, *none))[0]["unlike"].tolist() == [frozenset()]


def updated(folder, updates):
    """Adds the column to results.csv."""
    head, *lines = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text("\n".join([f"{head},updates", *(f"{line},{updates}" for line in lines)]) + "\n")
    return folder


def test_a_teacher_may_have_other_updates_than_a_student(tmp_path):
    """Such a test compares unlike rows anyway; a mark for it would hide other differing updates."""
    made = [
        updated(run(tmp_path / f"{network}{seed}", "Random", seed, CURVES[seed], network, **by()(seed)), count)
        for seed in (1, 2, 3)
        for network, count in (("teacher", 50), ("student", 100))
    ]
    assert compared(made)[0]["unlike"].tolist() == [frozenset()]


@pytest.mark.parametrize(("updates", "marked"), [("100", False), ("200", True), ("", False)])
def test_students_of_other_numbers_of_updates_are_compared_and_marked(tmp_path, updates, marked):
    folders = rows(tmp_path, by(), by())
    for folder in folders:
        updated(folder, updates if folder.name == "en2" else "100")
    table, unlike = compared(folders)
    words = frozenset({builds.UPDATES} if marked else ())
    assert table["unlike"].tolist() == [words] and set(unlike.values()) == {words}
    said = "‡ runs of one seed differ in their number of updates: the difference may come from that."
    assert (said in claims(results.read(folders))) == marked


@pytest.mark.parametrize("change", [{"torch": "2.15"}, {"machine": "H100"}, {"threads": 8}, {"fast": "off"}])
def test_other_machines_threads_and_releases_are_told_below_the_table_only(tmp_path, change):
    table, unlike = compared(rows(tmp_path, by(), by(**change)))
    assert table["unlike"].tolist() == [frozenset()] and set(unlike.values()) == {frozenset()}


def test_tests_against_one_row_are_marked_at_each_budget_and_of_the_areas(tmp_path):
    table = statistics.contrasts(results.read(rows(tmp_path, by(), by(COMMITS[1]))), ALEXNET, "CM+KD†", mixed=True)
    assert dict(zip(table["at"], table["unlike"], strict=True)) == dict.fromkeys(
        [10, 50, "area"], frozenset({"commit"})
    )


def test_what_is_compared_are_the_two_runs_of_a_seed(tmp_path):
    a_build_each = lambda seed: by(COMMITS[seed % 2], TEACHERS[seed % 2])(seed)  # noqa: E731
    table, _ = compared(rows(tmp_path / "alike", a_build_each, a_build_each))
    assert table["n"].tolist() == [3] and table["unlike"].tolist() == [frozenset()]
    with pytest.raises(InputError, match=r"kd1 and .*en1 would be compared"):  # seed 2's are alike
        compared(rows(tmp_path / "unlike", a_build_each, by()))


def test_teachers_of_each_rounds_labels_may_differ(tmp_path):
    ours, theirs = by(teacher=list(TEACHERS)), by(teacher=[TEACHERS[1], TEACHERS[0]])
    table, _ = compared(rows(tmp_path, ours, theirs, labels="labeled"))
    assert table["row"].tolist() == ["CM+KD"] and table["unlike"].tolist() == [frozenset()]


def test_a_teacher_is_compared_where_both_runs_have_a_shared_one():
    """Not with a run that has none, and not with those of each round's labels."""
    alone, shared, fair = ((), False), (TEACHERS[:1], True), (TEACHERS, False)
    found = {str(n): builds.Made((builds.Sitting(COMMITS[0]),), *each) for n, each in enumerate((alone, shared, fair))}
    assert builds.compare(found, [("0", "1"), ("1", "2"), ("0", "2")], mixed=False) == frozenset()


def test_runs_made_with_several_builds_are_like_no_other(tmp_path):
    def both(seed):
        return {"made_with": [sitting(), sitting(COMMITS[1])], "teacher_sha256": TEACHERS[0]}

    with pytest.raises(InputError, match=r"commit \(0123456789 \+ fedcba9876 and 0123456789\)"):
        compared(rows(tmp_path / "one", both, by()))
    with pytest.raises(InputError, match="commit"):
        compared(rows(tmp_path / "both", both, both))


def test_only_the_budgets_that_a_test_takes_are_compared(tmp_path):
    folders = rows(tmp_path, by(), by())
    for seed in (1, 2, 3):  # at 100% one row alone, by another build
        made(run(tmp_path / f"full{seed}", "KD", seed, {100: 70 + seed}), **by(COMMITS[1])(seed))
        folders.append(tmp_path / f"full{seed}")
    table, _ = compared(folders)
    assert table["unlike"].tolist() == [frozenset()]


def test_one_seed_makes_no_test_to_refuse_but_its_difference_is_marked(tmp_path):
    folders = rows(tmp_path, by(), by(COMMITS[1]), seeds=(1,))
    text = claims(results.read(folders))
    assert "| CM+KD† | EnCoDe† | -1.00‡     |   |   | 1 |   |        |              |" in text
    assert "‡ runs of one seed differ in commit: the difference may come from that." in text


def test_two_seeds_make_a_test_to_refuse(tmp_path):
    with pytest.raises(InputError, match=r"kd1 and .*en1 would be compared but differ in commit"):
        statistics.paired_tests(results.read(rows(tmp_path, by(), by(COMMITS[1]), seeds=(1, 2))), ALEXNET)


def test_runs_without_a_record_are_reported_and_marked_beside_ones_with(tmp_path):
    text = claims(results.read(rows(tmp_path / "old", nothing, nothing)))
    assert "‡" not in text and "runs without a record of their commit cannot be checked" in text
    assert "- no record of commit, torch or machine: AlexNet on cifar10 CM+KD† (1-3), EnCoDe† (1-3)" in text
    table, unlike = compared(rows(tmp_path / "half", nothing, by()))
    assert table["unlike"].tolist() == [frozenset({builds.ONE_SIDED})] == list({*unlike.values()})
    text = claims(results.read(rows(tmp_path / "begun", nothing, by())))
    assert "-2.00‡" in text and "‡ one of two runs has no record of its commit, amp or teacher" in text

    def begun_before(seed):  # there were records, and resumed since
        return {"amp": "off", "made_with": [{}, sitting()], "teacher_sha256": TEACHERS[0]}

    table, _ = compared(rows(tmp_path / "resumed", begun_before, by()))
    assert table["unlike"].tolist() == [frozenset({builds.ONE_SIDED})]
    no_git, _ = compared(rows(tmp_path / "no_git", by(""), by("")))
    assert no_git["unlike"].tolist() == [frozenset()]


def test_amp_was_a_flag_before_there_were_records(tmp_path):
    with pytest.raises(InputError, match=r"differ in amp \(bf16 and off\)"):
        compared(rows(tmp_path, lambda seed: {"amp": "bf16"}, by()))


def test_the_tables_end_with_what_they_were_made_with(tmp_path):
    folders = [run(tmp_path / f"cm{seed}", "Random", seed, {10: 55}) for seed in (1, 2, 3, 5)]
    for folder in folders[:3]:
        made(folder, made_with=[sitting()])
    made(folders[2], made_with=[sitting(), sitting(threads=1)])
    folders += [made(run(tmp_path / "kd", "KD", 1, {10: 60}), **by(dirty=True)(1))]
    fair = [TEACHERS[0], TEACHERS[1]]
    folders += [made(run(tmp_path / "en", "EnCoDe", 1, {10: 60}, sampler="vae"), **by("", fair, device="cuda:0")(1))]
    files = report.write(folders, tmp_path / "out", time_inference=False)
    head = "Made with (seeds); runs without a record of their commit cannot be checked for having been made alike:"
    usual = "2 threads, amp off, fast auto"
    expected = [
        head,
        "- commit 0123456789, torch 2.14.1, AMD EPYC 7B13, cpu, 2 threads, amp off, fast auto: "
        "AlexNet on cifar10 CM (1-2, in part 3)",
        "- commit 0123456789, torch 2.14.1, AMD EPYC 7B13, cpu, 1 thread, amp off, fast auto: "
        "AlexNet on cifar10 CM (in part 3)",
        "- no record of commit, torch or machine: AlexNet on cifar10 CM (5)",
        f"- commit 0123456789-dirty, torch 2.14.1, AMD EPYC 7B13, cpu, {usual}, teacher 1111111111: "
        "AlexNet on cifar10 CM+KD† (1)",
        f"- commit unknown, torch 2.14.1, AMD EPYC 7B13, cuda:0, {usual}, 2 teachers, one a round: "
        "AlexNet on cifar10 EnCoDe† (1)",
    ]
    for name in ("table1.md", "statistics.md"):
        assert (tmp_path / "out" / name).read_text(encoding="utf-8").splitlines()[-6:] == expected
    latex = files[1].read_text(encoding="utf-8").splitlines()
    assert files[1].name == "table1.tex" and latex[-6:] == [f"% {line}" for line in expected]


IMAGES = {"image_size": 64, "num_images": 50000, "data": "a" * 64, "test_data": "b" * 64}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "c" * 64}, r"images \(data\)"),
        ({"test_data": "c" * 64}, r"images \(test_data\)"),
        ({"num_images": 400, "data": "c" * 64, "test_data": "d" * 64}, r"images \(num_images, data, test_data\)"),
        ({"image_size": 32, "num_images": 400, "data": "c" * 64}, r"images \(num_images\)"),
    ],
)
def test_a_test_of_runs_on_other_images_is_refused_by_name_and_mixed_marks_it(tmp_path, changes, words):
    """10% of other images are other labels, and test accuracies on other images cannot be compared."""
    ours, theirs = (lambda seed, more=more: by()(seed) | IMAGES | more for more in ({}, changes))
    folders = rows(tmp_path, ours, theirs)
    with pytest.raises(InputError, match=rf"kd1 and .*en1 would be compared but differ in {words}; make them alike"):
        statistics.paired_tests(results.read(folders), ALEXNET)
    table, _ = compared(folders, mixed=True)
    assert set(table["unlike"]) == {frozenset({"images"})}
    assert builds.explain({"images"}) == ["‡ runs of one seed differ in images: the difference may come from that."]


def test_the_same_images_at_two_sizes_are_compared(tmp_path):
    """Their SHA-256 are those of the resized images; a run older than the key has none."""
    small = {"image_size": 32, "data": "c" * 64, "test_data": "d" * 64}
    for name, theirs in (("small", IMAGES | small), ("old", {})):
        folders = rows(tmp_path / name, lambda seed: by()(seed) | IMAGES, lambda seed, more=theirs: by()(seed) | more)
        assert set(compared(folders)[0]["unlike"]) == {frozenset()}
