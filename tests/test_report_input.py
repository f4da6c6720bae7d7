"""What the report refuses, each with one line that names the file."""

import io
import os
import re

import numpy as np
import pytest

from common import entry, report
from common.errors import InputError
from common.report import results, tables

from .reports import HEADER, edit, predictions, refused, run


def test_runs_of_one_cell_that_were_configured_differently_are_refused_by_name(tmp_path):
    first = run(tmp_path / "a", "KD", 1, {10: 60})
    other = run(tmp_path / "b", "KD", 2, {10: 61}, train_epochs=3)
    words = r"a and .*b are both CM\+KD† of AlexNet on cifar10 at 10% but differ in --train_epochs 2 and 3"
    with pytest.raises(InputError, match=words):
        results.read([first, other])
    with pytest.raises(InputError, match="with one seed"):
        results.read([first, run(tmp_path / "c", "KD", 1, {10: 61})])


def test_runs_on_other_images_under_one_name_are_refused(tmp_path):
    """With images drawn by the seed, `data` differs by seed and cannot tell; the mean went over two data sets."""
    first = run(tmp_path / "a", "KD", 1, {10: 60}, data="1" * 64, train_data="5" * 64)
    same = run(tmp_path / "b", "KD", 2, {10: 61}, data="2" * 64, train_data="5" * 64)
    older = run(tmp_path / "c", "KD", 3, {10: 61}, data="3" * 64)
    assert len(results.read([first, same, older]).rows) == 3
    other = run(tmp_path / "d", "KD", 4, {10: 61}, data="4" * 64, train_data="6" * 64)
    with pytest.raises(InputError, match=r"a and .*d are both .* but differ in other training images under this --da"):
        results.read([first, other])
    with pytest.raises(InputError, match="but differ in other training images under this --dataset"):
        results.read([first, other], ablation=True)
    annotated = run(tmp_path / "e", "KD", 5, {10: 61}, train_data="7" * 64, labels="labels.csv")
    assert len(results.read([first, annotated]).rows) == 2  # its SHA-256 covers file names instead of labels


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"results\.csv: is missing; name run folders, such as runs/"):
        results.read([tmp_path])
    (tmp_path / "results.csv").write_text(HEADER + "\n")
    with pytest.raises(InputError, match="no finished round yet"):
        results.read([tmp_path])
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "a", "KD", 1, {10: 60})
    with pytest.raises(InputError, match=r"--output .*: cannot be written"):
        report.write([done], tmp_path / "file" / "out", time_inference=False)


def test_a_runs_folder_is_no_place_for_a_report(tmp_path):
    """Regression: the report's queries.csv replaced the run's, the record of which images were bought."""
    done = run(tmp_path / "a", "KD", 1, {10: 60})
    (done / "queries.csv").write_text("round,index,score,label\n0,3,,1\n")
    before = {path: path.read_bytes() for path in done.iterdir()}
    with pytest.raises(InputError, match=r"--output .*a: is a run's folder, some of whose files would be replaced"):
        report.write([done], tmp_path / "a" / ".." / "a", time_inference=False)
    assert {path: path.read_bytes() for path in done.iterdir()} == before


def test_a_wrong_folder_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as caught:
        entry.run(report.main)
    assert caught.value.code == 2 and "nowhere/results.csv: is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("KD", "KDX", "unknown method 'KDX'; known: Single, Random, KD, EnCoDe"),
        ("student", "", "unknown network ''; known: student, teacher"),
        ("student", "teacher", "KD trains no teacher; Single and Random do"),
        ("AlexNet", "LeNet", "unknown model 'LeNet'; known: AlexNet, ResNet, VGG"),
        (",70.5", ",nan", "line 3: test_accuracy is 'nan'; must be a number from 0 to 100"),
        (",70.5", ",inf", "line 3: test_accuracy is 'inf'; must be"),
        (",70.5", ",-1", "line 3: test_accuracy is '-1'; must be"),
        (",70.5", ",808", "line 3: test_accuracy is '808'; must be"),
        (",70.5", ",", "line 3: test_accuracy is ''; must be"),
        (",20,", ",120,", "line 3: percent is '120'; must be a number from 0 to 100"),
        (",7,1,", ",x,1,", "line 3: seed is 'x'; must be a whole number from 0"),
        (",7,1,", ",7,0.5,", "line 3: round is '0.5'; must be a whole number from 0"),
        (",7,1,", ",7,0,", "round 0 appears twice; each round has one row"),
        (",70.5", "", "line 3 has 11 values under 12 columns"),
        (",70.5", ",70.5,1", "line 3 has 13 values under 12 columns"),
    ],
)
def test_a_wrong_value_of_results_csv_is_named_with_its_line(tmp_path, old, new, words):
    folder = run(tmp_path / "a", "KD", 7, {10: 60, 20: 70.5})
    head, first, second = (folder / "results.csv").read_text().splitlines()
    assert old in second
    (folder / "results.csv").write_text("\n".join([head, first, second.replace(old, new, 1)]) + "\n")
    assert refused(folder).startswith(f"{folder / 'results.csv'}: {words}")


@pytest.mark.parametrize(
    "name, old, new, words",
    [
        ("results", "sampler,distill_on", "sampler,sampler", "not a run's results (column sampler is there twice)"),
        ("results", "percent", "share", "not a run's results (no column percent)"),
        ("queries", "round,index", "turn,index", "not a run's queries (no column round)"),
        ("queries", "index,score,label", "image,score,class", "not a run's queries (no column index, label)"),
        ("queries", "0,0,,0", "0,-1,,0", "line 2: index is '-1'; must be a whole number from 0"),
        (
            "queries",
            "0,3,,1",
            "0,3,,1000000000",
            "line 4: label is '1000000000'; must be a whole number from 0 to 9999",
        ),
        ("queries", "1,3,,1", "3,3,,1", "line 7: round is '3'; must be a whole number from 0 to 2"),
        ("history", "round,epoch,loss,val_accuracy", "a,b,c,d", "not a run's history (no column round, epoch)"),
        ("history", "0,2,0.5,42", "0,2,0.5,nan", "line 3: val_accuracy is 'nan'; must be a number from 0 to 100"),
        ("history", "0,2,0.5,42", "0,2,nan,42", "line 3: loss is 'nan'; must be a number"),
        ("history", "0,2,0.5,42", "0,2,low,42", "line 3: loss is 'low'; must be a number"),
        ("history", "1,2,0.5", "7,2,0.5", "line 5: round is '7'; must be a whole number from 0 to 2"),
    ],
)
def test_a_table_that_is_no_runs_is_refused(tmp_path, name, old, new, words):
    folder = edit(run(tmp_path / "a", "KD", 7, {10: 60, 20: 70.5}), f"{name}.csv", old, new)
    assert refused(folder).startswith(f"{folder / name}.csv: {words}")


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("val_accuracy", "zzz", "a number from 0 to 100"),
        ("teacher_accuracy", "808", "a number from 0 to 100"),
        ("teacher_accuracy", "nan", "a number from 0 to 100"),
        ("labels_in_all", "-5", "a whole number from 0"),
        ("labels_in_all", "50.5", "a whole number from 0"),
        ("labeled", "x", "a whole number from 0"),
    ],
)
def test_a_column_that_may_be_blank_holds_numbers(tmp_path, column, value, wanted):
    folder = run(tmp_path / "a", "KD", 7, {10: 60, 20: 70.5})
    path = folder / "results.csv"
    head, first, second = path.read_text().splitlines()
    path.write_text(f"{head},{column}\n{first},\n{second},50\n")
    assert len(results.read([folder]).rows) >= 2
    path.write_text(f"{head},{column}\n{first},\n{second},{value}\n")
    assert refused(folder) == f"{path}: line 3: {column} is {value!r}; must be {wanted}"


def test_a_query_of_a_class_that_does_not_exist_is_refused(tmp_path):
    folder = run(tmp_path / "a", "KD", 7, {10: 60}, pool={"classes": ["a", "b"], "images": [3, 2]})
    assert len(results.read([folder]).queries) == 3
    edit(folder, "queries.csv", "0,1,,1", "0,1,,2")
    assert refused(folder) == f"{folder / 'queries.csv'}: line 3: label is '2'; must be a whole number from 0 to 1"


def test_rows_of_the_round_that_a_run_is_in_are_left_out(tmp_path):
    folder = run(tmp_path / "a", "KD", 7, {10: 60, 20: 70.5})
    for name, line in (("queries", "2,5,,1"), ("history", "2,1,0.5,44")):
        with open(folder / f"{name}.csv", "a") as file:
            file.write(line + "\n")
    found = results.read([folder])
    assert found.queries["round"].unique().tolist() == found.history["round"].unique().tolist() == [0, 1]


def test_a_run_that_waits_for_labels_is_reported_without_its_open_queries(tmp_path):
    folder = run(tmp_path / "a", "KD", 7, {10: 60, 20: 70.5})
    path = folder / "queries.csv"
    written = path.read_text()
    path.write_text(written + "2,5,,1\n2,6,,\n2,7,,\n")
    assert len(results.read([folder]).queries) == 6
    path.write_text(written + "2,5,,\n2,6,,x\n")
    assert refused(folder).startswith(f"{path}: line 9: label is 'x'")
    path.write_text(written.replace("1,1,,1", "1,1,,"))  # of a round that was trained
    assert refused(folder).startswith(f"{path}: line 6: label is ''")


@pytest.mark.parametrize("name", ["results", "history", "queries"])
def test_bytes_that_are_no_text_are_refused(tmp_path, name):
    folder = run(tmp_path / "a", "KD", 7, {10: 60})
    for content in (b"\xff\xfe\x00round", b""):
        (folder / f"{name}.csv").write_bytes(content)
        assert refused(folder).startswith(f"{folder / name}.csv: not a run's {name} (")


@pytest.mark.parametrize("text", ["[]", "3", "{", "\xff"])
def test_a_config_that_is_no_object_is_refused(tmp_path, text):
    folder = run(tmp_path / "a", "KD", 7, {10: 60})
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert refused(folder).startswith(f"{folder / 'config.json'}: not readable; put a copy back")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert refused(folder).startswith(f"{folder / 'config.json'}: not readable; put a copy back")
    (folder / "config.json").rmdir()
    assert len(results.read([folder]).rows) == 1


@pytest.mark.parametrize("value", ["x", -1, 1.5, None, True])
def test_a_config_whose_num_val_is_no_count_is_refused(tmp_path, value):
    folder = run(tmp_path / "a", "KD", 7, {10: 60}, num_val=value)
    assert refused(folder) == f"{folder / 'config.json'}: num_val is {value!r}; must be a whole number from 0"


@pytest.mark.parametrize("record", [{"made_with": {}}, {"made_with": {"commit": "a"}}, {"made_with": ["a"]}])
def test_a_record_that_is_none_is_refused(tmp_path, record):
    folder = run(tmp_path / "a", "KD", 7, {10: 60}, **record)
    assert refused(folder).startswith(f"{folder / 'config.json'}: not readable; put a copy back")


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"classes": ["a"]},
        {"classes": ["a"], "images": [1, 2]},
    ],
)
def test_a_pool_that_is_none_is_refused(tmp_path, record):
    folder = run(tmp_path / "a", "KD", 7, {10: 60}, pool=record)
    assert refused(folder) == f"{folder / 'config.json'}: pool must be the classes' names and how many images each has"


def test_predictions_must_be_the_rounds_own(tmp_path):
    folder = run(tmp_path / "a", "KD", 7, {10: 60, 20: 66.67})
    predictions(folder, 0, [0, 1, 1, 1, 1], [0, 1, 1, 0, 0])
    predictions(folder, 1, [0, 1, 1], [0, 1, 0])  # 66.67 is rounded
    found = results.read([folder]).classes
    assert found[["round", "class", "accuracy"]].to_numpy().tolist() == [
        [0, 0, pytest.approx(100 / 3)], [0, 1, 100], [1, 0, 50], [1, 1, 100]
    ]  # fmt: skip
    path = folder / "predictions_00.npz"
    predictions(folder, 0, [0, 1, 1, 1, 0], [0, 1, 1, 0, 0])
    assert refused(folder).startswith(f"{path}: 4 of its 5 predictions are right, results.csv has 60.0%; it belongs to")
    np.savez_compressed(path, predicted=np.zeros(2, np.uint8))
    assert refused(folder).startswith(f"{path}: no array labels; it needs predicted, labels")
    predictions(folder, 0, [0, 1, 1, 1, 1], [0, 1, 1, 0, 0])
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:60] + b"\xff" * 4 + whole[64:], b"no archive"):
        path.write_bytes(damaged)
        assert refused(folder).startswith(f"{path}: not a readable .npz file (")


def test_a_folder_given_twice_is_refused(tmp_path):
    folder = run(tmp_path / "a", "KD", 7, {10: 60})
    again = tmp_path / "a" / ".." / "a"
    assert refused(folder, again) == f"{again}: is named twice; name each run once"


def test_a_query_of_an_image_that_does_not_exist_is_refused_with_the_data_set(tmp_path):
    folder = run(tmp_path / "a", "Random", 1, {10: 60}, dataset="digits")
    edit(folder, "queries.csv", "0,3,,1", "0,70000,,1")
    words = (
        re.escape(f"{folder / 'queries.csv'}: there is no image 70000; --dataset digits has ") + r"\d+, counted from"
    )
    with pytest.raises(InputError, match=words):
        report.write([folder], tmp_path / "out", time_inference=False, data_dir=tmp_path)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no config\.json whose dataset says"):
        report.write([folder], tmp_path / "out", time_inference=False, data_dir=tmp_path)


def test_images_that_are_elsewhere_now_leave_a_report_as_it_was(tmp_path):
    """Regression: the tables had been replaced by then, beside the page of the previous report."""
    folder = run(tmp_path / "a", "Random", 1, {10: 60}, dataset=str(tmp_path / "moved"))
    said = rf"{re.escape(str(folder))}: its images cannot be loaded \(.*moved: neither a known data set .*; put them"
    with pytest.raises(InputError, match=said):
        report.write([folder], tmp_path / "out", time_inference=False, data_dir=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_terminal_without_the_signs_and_a_closed_pipe_end_without_a_traceback(tmp_path, monkeypatch):
    words = [str(run(tmp_path / name, "KD", seed, {10: 60 + seed})) for seed, name in enumerate("abc", 1)]
    words += ["--no-inference", "--output", str(tmp_path / "out")]
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    report.main(words)
    assert b"| CM+KD?" in terminal.buffer.getvalue() and b" ? 2.48 (n=3)" in terminal.buffer.getvalue()
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody_reads:
        monkeypatch.setattr("sys.stdout", nobody_reads)
        report.main(words)
        nobody_reads.write("what Python flushes at the end")
    monkeypatch.setattr("sys.stdout", None)
    report.main(words)
    assert "CM+KD†" in (tmp_path / "out" / "table1.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sampler", "start", "last", "refuses"),
    [
        ("entropy", "anew", 90, True),
        ("entropy", "anew", 100, False),  # all labels are the same set
        ("random", "anew", 90, False),
        ("random", "before", 90, True),  # each round's teacher starts from the one before
        ("random", "before", 100, True),
    ],
)
def test_a_cell_that_was_come_to_by_other_rounds_is_refused(sampler, start, last, refuses, tmp_path):
    """Regression: one query of 70, and one of 20 and one of 50, were one cell of two seeds; so were other teachers."""
    for seed, counts in ((1, (20, last)), (2, (20, 40, last))):
        folder = run(tmp_path / str(seed), "KD", seed, dict.fromkeys(counts, 50), sampler=sampler, teacher_start=start)
        head, *lines = (folder / "results.csv").read_text().splitlines()
        more = [f"{line.replace(',all,', ',labeled,')},{n},{start}" for line, n in zip(lines, counts, strict=True)]
        (folder / "results.csv").write_text("\n".join([f"{head},labeled,teacher_start", *more]) + "\n")
    folders = [tmp_path / "1", tmp_path / "2"]
    if refuses:
        said = f"at {last}% but came to it by other rounds, of 20 {last} and of 20 40 {last} labels; report them apart"
        assert said in refused(*folders)
    else:
        assert len(results.read(folders).rows) == 5


def test_other_images_are_told_along_a_row_and_refused_among_fair_teachers(tmp_path):
    """Regression: both were joined without a word, where a student's cell refuses them."""
    at = [run(tmp_path / f"cm{n}", "Random", 1, {n: 50 + n}, train_data=f"{n}" * 32) for n in (10, 40)]
    found = results.read(at)
    assert any("CM: other training images under this --dataset, from percent to percent of 10% 40%" in line
               for line in tables.other_flags(found))  # fmt: skip
    teachers = []
    for seed, distilled in ((1, "pool"), (2, "labeled")):
        data = {"teacher_labels": "labeled", "distill_on": distilled, "test_data": f"{seed}" * 64}
        folder = run(tmp_path / f"kd{seed}", "KD", seed, {10: 50}, **data)
        head, line = (folder / "results.csv").read_text().splitlines()
        line = line.replace(",labeled,mse,all,", f",{distilled},mse,labeled,")
        (folder / "results.csv").write_text(f"{head},teacher_accuracy,labeled,labels_in_all\n{line},70,5000,5000\n")
        teachers.append(folder)
    assert "are both Baseline of AlexNet on cifar10 at 10% but differ in other test images" in refused(*teachers)
