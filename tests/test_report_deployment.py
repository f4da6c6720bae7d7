"""Table II and its figure from export.csv files made of text."""

import csv
import math

import pytest

from common import report
from common.errors import InputError
from common.report import deployment, results

from .reports import edit, export, run


@pytest.fixture
def seeds(tmp_path):
    """Three seeds of EnCoDe, each exported at its last round."""
    made = []
    for seed, shift in ((1, 0.0), (2, 1.0), (3, -1.0)):
        folder = run(tmp_path / f"en{seed}", "EnCoDe", seed, {10: 58, 60: 65, 100: 70 + shift}, sampler="vae")
        ms = {1: 0.3, 2: 0.4, 3: 0.9}[seed]
        made.append(export(folder, 2, (ms, 0.1, 4), (70 + shift, 68 + 2 * shift, 81.3)))
    return made


def written(found, ratios, output):
    return deployment.write(found, *deployment.table2(found, ratios), output)


def rows_of(path):
    """The Markdown table's lines by (row, precision)."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in path.read_text().splitlines() if "|" in line]
    return {(line[0], line[3]): dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_exported_rows_show_what_was_measured(seeds, tmp_path):
    files = written(results.read(seeds), {("AlexNet", 10, 64): 0.5}, tmp_path)
    assert [file.name for file in files] == ["table2.md", "table2.csv", "deployment.png", "deployment.svg"]
    assert all(file.stat().st_size for file in files)
    rows = rows_of(files[0])
    assert list(rows) == [("teacher", "fp32"), ("EnCoDe†", "fp32"), ("EnCoDe†", "int8")]
    fp32, quantized, teacher = rows["EnCoDe†", "fp32"], rows["EnCoDe†", "int8"], rows["teacher", "fp32"]
    # t(0.975, 2) = 4.3027; 70, 71, 69 have the standard error 1 / sqrt(3), in int8 twice that
    assert (fp32["accuracy, %"], fp32["n"], fp32["labels, %"]) == ("70.00 ± 2.48", "3", "100")
    assert (quantized["accuracy, %"], quantized["n"]) == ("68.00 ± 4.97", "3")
    # the median of 0.3, 0.4 and 0.9 of a teacher's 4 ms; the paper has 0.21 for its student
    assert (fp32["ms an image"], fp32["time, teacher 1"], fp32["the paper's"]) == ("0.4", "0.1", "0.21")
    assert (quantized["ms an image"], quantized["time, teacher 1"], quantized["the paper's"]) == ("0.1", "0.025", "")
    assert (fp32["file, MB"], fp32["parameters, M"], fp32["MACs, M"]) == ("2.4", "0.601", "1.36")
    # one teacher, shared by three runs
    assert (teacher["accuracy, %"], teacher["n"], teacher["labels, %"]) == ("81.30", "1", "")
    assert (teacher["ms an image"], teacher["time, teacher 1"], teacher["file, MB"]) == ("4", "1", "228")
    text = files[0].read_text()
    assert "one thread of a CPU; median of 500 passes" in text and "busy" not in text
    with open(files[1], newline="") as file:
        assert next(csv.DictReader(file)) == teacher
    again = written(results.read(seeds), {("AlexNet", 10, 64): 0.5}, tmp_path)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


def test_fair_teachers_of_equal_accuracy_are_each_counted(tmp_path):
    """Regression: equal accuracies were taken for one shared teacher, and those of all budgets for one row."""
    folders = []
    for seed, accuracy in ((1, 76.4), (2, 76.4), (3, 70)):
        sha = {"teacher_labels": "labeled", "teacher_sha256": [f"{seed}a" * 32, f"{seed}b" * 32]}
        folder = run(tmp_path / f"kd{seed}", "KD", seed, {10: 60, 60: 65}, sampler="margin", **sha)
        folders.append(export(folder, int(seed == 3), (1, 1, 4), (65 if seed == 3 else 60, 59, accuracy)))
    found = results.read(folders)
    table = deployment.lines(found, deployment.exports(found), {})
    rows = table[table["row"] == "teacher"].set_index("percent")
    assert rows["n"].to_dict() == {10: 2, 60: 1} and rows["accuracy"].to_dict() == {10: 76.4, 60: 70}


def test_rows_that_were_not_exported_have_the_time_taken_here(seeds, tmp_path):
    (seeds[0] / "export.csv").unlink()
    others = [run(tmp_path / "cm", "Random", 1, {10: 55, 100: 68}), run(tmp_path / "kd", "KD", 1, {10: 60})]
    base = run(tmp_path / "base", "Random", 1, {100: 80}, network="teacher")
    rows = rows_of(report.write([*seeds[:1], *others, base], tmp_path / "out", time_inference=False)[3])
    assert [row["time, teacher 1"] for row in rows.values()] == ["1", "", "", ""]
    files = written(results.read([*seeds[:1], *others, base]), {("AlexNet", 10, 64): 0.25}, tmp_path)
    assert [file.suffix for file in files] == [".md", ".csv"]  # without device times, no figure
    rows = rows_of(files[0])
    assert list(rows) == [(name, "fp32") for name in ("Baseline", "CM", "CM+KD†", "EnCoDe†")]
    assert [row["time, teacher 1"] for row in rows.values()] == ["1", "0.25", "0.25", "0.25"]
    assert [row["labels, %"] for row in rows.values()] == ["100", "100", "10", "60"]  # EnCoDe: as in the paper
    assert [row["the paper's"] for row in rows.values()] == ["1", "0.21", "", "0.21"]
    assert {row["ms an image"] for row in rows.values()} == {""} and rows["Baseline", "fp32"]["MACs, M"] == "94.1"
    assert "median of 50 forward passes" in files[0].read_text()


def test_the_papers_times_are_of_its_networks_on_its_data():
    found = [
        deployment._paper_ratio(*each)
        for each in ((("VGG", "svhn"), "EnCoDe†"), (("AlexNet", "digits"), "CM"), (("ResNet", "svhn"), "CM"))
    ]
    assert found[0] == 0.084 and all(map(math.isnan, found[1:]))


def test_a_teachers_row_takes_its_time_from_the_students_export(seeds, tmp_path):
    base = run(tmp_path / "base", "Single", 1, {100: 80}, network="teacher")
    rows = rows_of(written(results.read([*seeds, base]), {}, tmp_path)[0])
    assert [name for name, _ in rows] == ["Single teacher", "EnCoDe†", "EnCoDe†"]
    assert rows["Single teacher", "fp32"]["ms an image"] == "4"


def test_a_variant_of_the_teachers_row_is_the_teachers_network_too(tmp_path):
    """Not the student's size, cost or time: decided by its runs' network, not by its name."""
    folders = [run(tmp_path / f"a{seed}", "Random", seed, {10: 70}, network="teacher") for seed in (1, 2)]
    edit(folders[1], "results.csv", ",random,", ",entropy,")
    folders.append(run(tmp_path / "cm", "Random", 1, {10: 55}))
    rows = rows_of(written(results.read(folders), {("AlexNet", 10, 64): 0.25}, tmp_path)[0])
    found = {name: (row["parameters, M"], row["MACs, M"], row["time, teacher 1"]) for (name, _), row in rows.items()}
    teachers = ("57", "94.1", "1")
    assert found == {"Baseline": teachers, "Baseline (entropy)": teachers, "CM": ("0.601", "1.36", "0.25")}


@pytest.mark.filterwarnings("error::RuntimeWarning")  # pandas 2 warns about a median of NaNs alone
def test_another_network_as_teacher_has_no_time_to_compare_with(tmp_path):
    """The pair's time would be taken for it."""
    kd, other = (run(tmp_path / name, "KD", 1, {10: 60}, teacher=f"/t/{name}") for name in ("t.pt", "t.npz"))
    rows = rows_of(written(results.read([kd, other]), {("AlexNet", 10, 64): 0.25}, tmp_path)[0])
    names = ("CM+KD†", "fp32"), ("CM+KD (t.npz)", "fp32")
    assert {name: row["time, teacher 1"] for name, row in rows.items()} == dict(zip(names, ("0.25", ""), strict=True))
    edit(export(other, 0, (0.3, 0.1, 4), (60, 59, "")), "export.csv", "teacher", "gone")
    lines = [line for line in (other / "export.csv").read_text().splitlines() if "gone" not in line]
    (other / "export.csv").write_text("\n".join(lines) + "\n")
    rows = rows_of(written(results.read([other]), {("AlexNet", 10, 64): 0.25}, tmp_path)[0])
    assert list(rows) == [(names[1][0], "fp32"), (names[1][0], "int8")]
    assert [(row["ms an image"], row["time, teacher 1"]) for row in rows.values()] == [("0.3", ""), ("0.1", "")]


def test_an_export_of_another_network_than_the_rounds_is_refused(seeds, tmp_path):
    """A run restarted in the same folder leaves the old run's export."""
    edit(seeds[0], "results.csv", ",100,70.0", ",100,69.4")
    words = r"en1/export\.csv: is of a network with 70% test accuracy, round 2 has 69\.4%; export the run again"
    with pytest.raises(InputError, match=words):
        written(results.read(seeds), {}, tmp_path)
    edit(seeds[0], "results.csv", ",100,69.4", ",100,69.6")  # an image or two changed by rounding
    written(results.read(seeds), {}, tmp_path)


def test_a_row_has_the_cost_of_its_own_runs_images(tmp_path):
    runs = [run(tmp_path / "cm", "Random", 1, {10: 55}, image_size=64)]
    runs.append(run(tmp_path / "en", "EnCoDe", 1, {10: 58}, sampler="vae", image_size=128))
    ratios = {("AlexNet", 10, 64): 0.25, ("AlexNet", 10, 128): 0.125}
    rows = rows_of(written(results.read(runs), ratios, tmp_path)[0])
    assert {name: row["MACs, M"] for (name, _), row in rows.items()} == {"CM": "1.36", "EnCoDe†": "3.9"}
    # regression: it was the time at 64 px for both
    assert {name: row["time, teacher 1"] for (name, _), row in rows.items()} == {"CM": "0.25", "EnCoDe†": "0.125"}


def test_times_of_two_cpus_and_of_a_busy_one(seeds, tmp_path):
    export(seeds[2], 2, (3, 1, 10), (69, 66, ""), cpu="another", busy="True")
    path = written(results.read(seeds), {}, tmp_path)[0]
    rows = rows_of(path)
    assert rows["EnCoDe†", "fp32"]["ms an image"] == "" and rows["EnCoDe†", "fp32"]["time, teacher 1"] == "0.1"
    assert rows["teacher", "fp32"]["n"] == "1"  # one of unknown accuracy
    assert f"to be taken again: {seeds[2]}." in path.read_text() and "a CPU, another" in path.read_text()


def test_a_network_that_is_slower_than_the_teacher_has_more_than_its_time(tmp_path):
    """int8 may be, on a machine without instructions for it."""
    folder = export(run(tmp_path / "cm", "Random", 1, {10: 55}), 0, (2, 10, 4), (55, 54, 80))
    rows = rows_of(written(results.read([folder]), {}, tmp_path)[0])
    assert {name: row["time, teacher 1"] for name, row in rows.items()} == {
        ("teacher", "fp32"): "1", ("CM", "fp32"): "0.5", ("CM", "int8"): "2.5"
    }  # fmt: skip


def test_a_teacher_of_unknown_accuracy_has_a_time_alone(tmp_path):
    folder = export(run(tmp_path / "cm", "Random", 1, {10: 55}), 0, (1, 1, 4), (55, 54, ""))
    rows = rows_of(written(results.read([folder]), {}, tmp_path)[0])
    teacher = rows["teacher", "fp32"]
    assert (teacher["accuracy, %"], teacher["n"], teacher["ms an image"]) == ("", "", "4")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("latency_ms,", "latency,", "no column latency_ms;"),
        ("0.3,", "fast,", "latency_ms holds a value that is not a number"),
        ("student,int8,", "teacher,int8,", "several lines of a teacher"),
        ("0.3,", "0,", "no times"),
        (",2,100,student,fp32", ",7,100,student,fp32", "is of round 7, which results.csv does not have"),
    ],
)
def test_a_damaged_export_is_refused_by_name(old, new, message, seeds, tmp_path):
    path = seeds[0] / "export.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        written(results.read(seeds), {}, tmp_path)
    assert "en1" in str(caught.value) and "export the run again" in str(caught.value)


def test_the_dagger_is_explained_where_a_row_has_it(seeds, tmp_path):
    assert "† distilled from a teacher" in written(results.read(seeds), {}, tmp_path)[0].read_text()
    alone = run(tmp_path / "cm", "Random", 1, {10: 50})
    assert "†" not in written(results.read([alone]), {}, tmp_path)[0].read_text()
