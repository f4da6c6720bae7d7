"""`--labels`: a run stops for the labels that it needs, and ends as if they had been there from the start."""

import csv
import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from common import data, recorded, teachers
from common.datasets import labels
from common.errors import InputError, LabelsNeeded
from common.files import locked
from common.grid import runner
from common.report import results, sheets
from common.teachers import store

from .conftest import ROOT, parse, run
from .launcher import launch

CLASSES = ["cat", "dog", "fox"]
WORDS = "--num_images 30 --num_val 4 --num_classes 3 --batch_size 6 --train_epochs 1 --image_size 64".split()  # noqa: SIM905
BUDGET = "--initial_budget 6 --budget 8 --subset 12".split()  # noqa: SIM905


@pytest.fixture
def folder(tmp_path):
    """30 training images without classes, and 2 of each class to test on; `truth` has their classes."""
    rng = np.random.default_rng(0)
    truth = {f"unlabeled/{number:02}.png": CLASSES[number % 3] for number in range(30)}
    files = [*truth, *(f"../test/{name}/{number}.png" for name in CLASSES for number in range(2))]
    for file in files:
        path = tmp_path / "data" / "train" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data", truth


def write(path, labels):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *labels.items()])


def words(folder, labels, *more):
    return [*WORDS, "--dataset", str(folder), "--labels", str(labels), *more]


def annotate(to_label, truth, labels):
    """The annotator: fills in the list (`labels` is the list), or appends it, header included, to another file."""
    with open(to_label, newline="") as file:
        asked = [row["file"] for row in csv.DictReader(file)]
    with open(labels, "w" if labels == to_label else "a", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((name, truth[name]) for name in asked)])
    return asked


@pytest.mark.parametrize(("method", "more"), [
    ("Random", "--sampler entropy"),
    ("KD", "--teacher_labels labeled --teacher_epochs 1 --teacher_batch_size 6 --rounds 3 --feat_wt 0.01"),
])  # fmt: skip
def test_a_run_with_an_annotator_ends_as_one_that_knew_everything(method, more, folder, tmp_path):
    path, truth = folder
    more = [*BUDGET, *more.split(), "--lr_task", "0.001", "--image_size", "32"]
    more += "--seed 5 --device cpu --threads 1 --amp off".split()  # noqa: SIM905
    where = {"folder": ROOT / "ResNet" / "CIFAR10"}
    write(tmp_path / "all.csv", truth)
    whole = launch(method, *words(path, tmp_path / "all.csv", *more, "--save_path", str(tmp_path / "whole")), **where)
    assert whole.returncode == 0, whole.stderr
    labels, name = tmp_path / "labels.csv", f"{method.lower()}-seed5"
    to_label, asked = tmp_path / "loop" / name / "to_label.csv", []
    for _ in range(10):
        done = launch(method, *words(path, labels, *more, "--save_path", str(tmp_path / "loop")), **where)
        if done.returncode == 0:
            break
        assert done.returncode == 3 and done.stderr == "", done.stderr
        assert f"fill in {to_label} and run the same command again, which adds them to {labels}" in done.stdout
        if asked:  # a round is done and the next one waits
            found = results.read([tmp_path / "loop" / name])
            assert len(found.rows[found.rows["own"]]) == found.queries["round"].nunique() == len(asked)
        asked.append(annotate(to_label, truth, to_label if method == "KD" else labels))
    # 6 labels and 4 validation images, then 8 a round, finally the rest of the pool of 26
    expected = [10, 8, 8, 4] if method == "Random" else [10, 8, 8]
    assert [len(names) for names in asked] == expected and len({name for part in asked for name in part}) == sum(
        expected
    )
    assert not to_label.exists()
    for table in ("results.csv", "queries.csv", "history.csv"):
        assert (tmp_path / "loop" / name / table).read_bytes() == (tmp_path / "whole" / name / table).read_bytes()
    weights = [
        torch.load(tmp_path / at / name / "round_02.pt", weights_only=True)["state_dict"] for at in ("loop", "whole")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    with open(tmp_path / "loop" / name / "queries.csv") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"0", "1", "2"}


def test_the_list_itself_is_not_taken_for_the_file_of_labels(folder, tmp_path):
    """Regression: the next round's list replaced the answers, which were nowhere else."""
    path, truth = folder
    to_label = tmp_path / "random-seed5" / "to_label.csv"
    more = [*BUDGET, "--save_path", str(tmp_path), "--seed", "5"]
    with pytest.raises(LabelsNeeded):
        run("Random", *words(path, tmp_path / "labels.csv", *more))
    annotate(to_label, truth, to_label)
    filled = to_label.read_bytes()
    (tmp_path / "link.csv").symlink_to(to_label)
    for name in (to_label, tmp_path / "link.csv"):
        with pytest.raises(InputError, match=r"--labels .*: is this run's list of what to label, which it replaces"):
            run("Random", *words(path, name, *more))
        assert to_label.read_bytes() == filled


def test_class_folders_of_some_classes_are_mentioned(folder, tmp_path, capsys):
    """They validate and train first: the accuracy of one class would choose the best epoch, and nothing said so."""
    path, truth = folder
    write(tmp_path / "labels.csv", truth)
    data.load(parse("Random", *words(path, tmp_path / "labels.csv")))
    assert "class folders" not in capsys.readouterr().err
    (path / "train" / "cat").mkdir()
    for name in list(truth)[::3]:
        (path / "train" / name).rename(path / "train" / "cat" / name.split("/")[1])
    write(tmp_path / "labels.csv", {name: label for name, label in truth.items() if label != "cat"})
    images = data.load(parse("Random", *words(path, tmp_path / "labels.csv")))
    assert images.labels[images.val].tolist() == [0] * 4
    assert "first, have none of 2 of 3 classes; to draw from all alike, move" in capsys.readouterr().err


def test_an_answer_in_the_list_is_never_lost(folder, tmp_path):
    """Half of the list is filled in: these are not asked for again; a wrong answer is named, the list left as it is."""
    path, truth = folder
    labels, to_label = tmp_path / "labels.csv", tmp_path / "random-seed5" / "to_label.csv"
    command = ["Random", *words(path, labels, *BUDGET), "--save_path", str(tmp_path), "--seed", "5"]
    labels.write_text("file,label\nunlabeled/00.png,cat")  # its last line has no newline
    with pytest.raises(LabelsNeeded):
        run(*command)
    asked = list(csv.DictReader(to_label.open()))
    assert {row["label"] for row in asked} == {""}
    names = [row["file"] for row in asked]
    write(to_label, {names[0]: truth[names[0]], names[1]: "", names[2]: truth[names[2]]})
    with pytest.raises(LabelsNeeded, match=f"{len(names) - 2} images need a label"):
        run(*command)
    answered = {"unlabeled/00.png": "cat", names[0]: truth[names[0]], names[2]: truth[names[2]]}
    assert {row["file"]: row["label"] for row in csv.DictReader(labels.open())} == answered
    assert [row["file"] for row in csv.DictReader(to_label.open())] == [names[1], *names[3:]]
    write(to_label, {names[1]: "cow"})
    with pytest.raises(InputError, match=r"to_label\.csv, line 2: 'cow' is not a class; use cat, dog, fox"):
        run(*command)
    assert "cow" in to_label.read_text()


def test_a_run_that_waited_for_labels_is_exported_and_drawn_as_any_other(folder, tmp_path):
    """Its config.json says where the labels were, and names the classes although some labels are unknown."""
    path, truth = folder
    labels = tmp_path / "labels.csv"
    more = ["--rounds", "1", "--seed", "5", "--save_path", str(tmp_path)]
    images = data.load(parse("Random", *words(path, labels, *BUDGET, *more)))
    write(labels, {name: truth[name] for name in truth if name != images.files[images.pool[-1]]})  # never asked for
    run("Random", *words(path, labels, *BUDGET, *more, "--device", "cpu", "--amp", "off", "--threads", "1"))
    done = tmp_path / "random-seed5"
    config = json.loads((done / "config.json").read_text())
    assert config["pool"] == {"classes": CLASSES, "images": None} and config["labels"] == str(labels)
    images = recorded.images(done, tmp_path)[0]
    assert images.classes == CLASSES and images.files is not None
    labels.unlink()  # what is exported needs no training label
    assert recorded.images(done, tmp_path)[0].fingerprint == images.fingerprint
    found = results.read([done])
    assert found.class_names(found.settings()[0][1], 3) == CLASSES and found.pools[str(done)] == dict.fromkeys(
        CLASSES, 0
    )
    assert len(sheets.contact_sheets(found, tmp_path, tmp_path)) == 1


def test_images_whose_folder_says_their_class_come_first(folder, tmp_path):
    """No labels are asked for while these suffice; the classes' names are those of the test folders."""
    path, truth = folder
    for name, label in list(truth.items())[:12]:
        target = path / "train" / label
        target.mkdir(exist_ok=True)
        shutil.move(path / "train" / name, target)
    images = data.load(parse("Random", *words(path, tmp_path / "none.csv", *BUDGET)))
    assert (images.labels >= 0).sum() == 12 and images.classes == CLASSES
    assert (images.labels[images.val] >= 0).all() and (images.labels[images.pool[:8]] >= 0).all()
    assert (images.labels[images.pool[8:]] < 0).all()
    known = [(images.files[n], images.classes[images.labels[n]]) for n in range(30) if images.labels[n] >= 0]
    assert all(file.startswith(f"{label}/") for file, label in known)
    with pytest.raises(LabelsNeeded, match=r"round 2/4 \(14 labels"):
        run("Random", *words(path, tmp_path / "none.csv", *BUDGET, "--train_epochs", "1"), "--save_path", str(tmp_path),
            "--device", "cpu", "--threads", "1", "--amp", "off")  # fmt: skip


def test_where_nothing_is_validated_no_label_is_asked_for_it(folder, tmp_path):
    path, _ = folder
    command = ["Random", *words(path, tmp_path / "labels.csv", *BUDGET), "--save_path", str(tmp_path)]
    with pytest.raises(LabelsNeeded, match=r"round 1/\d+ \(6 labels, 20%\): 6 images need a label"):
        run(*command, "--num_val", "0", "--keep", "last")


def test_a_class_has_its_number_where_others_have_no_folder_in_train(folder, tmp_path):
    path, truth = folder
    (path / "train" / "fox").mkdir()
    shutil.move(path / "train" / "unlabeled" / "02.png", path / "train" / "fox")
    images = data.load(parse("Random", *words(path, tmp_path / "none.csv", *BUDGET)))
    (known,) = images.labels[images.labels >= 0].tolist()
    assert images.classes[known] == truth["unlabeled/02.png"] == "fox"


def test_images_may_lie_in_train_itself(folder, tmp_path):
    path, truth = folder
    for name in truth:
        shutil.move(path / "train" / name, path / "train")
    (path / "train" / "unlabeled").rmdir()
    write(tmp_path / "labels.csv", {"07.png": "fox", "08.png": ""})
    images = data.load(parse("Random", *words(path, tmp_path / "labels.csv", *BUDGET)))
    assert images.files[7] == "07.png" and images.labels.tolist() == [-1] * 7 + [2] + [-1] * 22


def test_which_data_it_is_does_not_depend_on_what_is_labelled(folder, tmp_path):
    """Otherwise a resumed run would be refused, and the teacher's outputs would be computed again."""
    path, truth = folder
    write(tmp_path / "half.csv", dict(list(truth.items())[::2]))  # with all or none the order would be the same anyway
    none, some = (
        data.load(parse("Random", *words(path, tmp_path / f"{name}.csv", *BUDGET))) for name in ("none", "half")
    )
    assert (none.source, none.fingerprint, none.test_fingerprint) == (
        some.source,
        some.fingerprint,
        some.test_fingerprint,
    )
    assert torch.equal(none.pool, some.pool)
    shutil.move(path / "train" / "unlabeled" / "03.png", path / "train" / "unlabeled" / "zz.png")
    other = data.load(parse("Random", *words(path, tmp_path / "none.csv", *BUDGET)))
    assert other.source != none.source


def test_a_teacher_of_other_answers_is_not_taken(folder, tmp_path):
    """Neither the one kept for all runs nor its unfinished training; with labels missing this cannot be checked."""
    path, truth = folder
    save = ["--save_path", str(tmp_path / "runs"), "--teacher_epochs", "1", *BUDGET]
    write(tmp_path / "a.csv", truth)
    write(tmp_path / "b.csv", dict(zip(truth, reversed(truth.values()), strict=True)))
    write(tmp_path / "some.csv", dict(list(truth.items())[:20]))
    args, other, some = (parse("KD", *words(path, tmp_path / f"{name}.csv", *save)) for name in ("a", "b", "some"))
    teachers.provide(args)
    kept = store.shared_path(args)
    assert store.load(args, data.load(args), kept)[1]["labels"] == 26
    with pytest.raises(InputError, match="was trained on other labels under the name"):
        store.load(other, data.load(other), kept)
    some.teacher = str(kept)
    store.load(some, data.load(some), kept)
    kept.unlink()
    with pytest.raises(InputError, match="holds a run with other flags or data: other labels of them in --labels"):
        teachers.provide(other)


def test_a_teacher_whose_labels_came_as_it_was_begun_says_which(folder, tmp_path):
    """Regression: `Single --network teacher` then published it without them, and it was taken for other labels' too."""
    path, truth = folder
    labels = tmp_path / "labels.csv"
    more = ["--save_path", str(tmp_path), "--seed", "5", "--network", "teacher"]
    with pytest.raises(LabelsNeeded):
        run("Single", *words(path, labels, *more))
    to_label = tmp_path / "single-seed5" / "to_label.csv"
    annotate(to_label, truth, to_label)
    run("Single", *words(path, labels, *more))
    args = parse("KD", *words(path, labels, *BUDGET, "--save_path", str(tmp_path)))
    kept, images = store.shared_path(args), data.load(args)
    assert store.load(args, images, kept)[1]["label_values"] == images.label_values != ""
    write(labels, dict(zip(truth, reversed(truth.values()), strict=True)))
    with pytest.raises(InputError, match="was trained on other labels under the name"):
        store.load(args, data.load(args), kept)


@pytest.mark.parametrize("changed", ["validation", "queried"])
def test_a_label_that_was_used_stays(changed, folder, tmp_path):
    path, truth = folder
    labels, more = tmp_path / "labels.csv", ["--save_path", str(tmp_path), "--seed", "5"]
    with pytest.raises(LabelsNeeded):
        run("Random", *words(path, labels, *BUDGET, *more))
    asked = annotate(tmp_path / "random-seed5" / "to_label.csv", truth, labels)
    with pytest.raises(LabelsNeeded):
        run("Random", *words(path, labels, *BUDGET, *more))
    name = asked[-1] if changed == "validation" else asked[0]
    answered = {**{file: truth[file] for file in asked}, name: "cat" if truth[name] != "cat" else "dog"}
    answered |= {file: truth[file] for file in truth if file not in answered}
    before = labels.read_bytes()
    write(labels, answered)
    refused = f"{name} was {truth[name]} when this run was trained on it, now it is {answered[name]}"
    with pytest.raises(InputError, match=refused):
        run("Random", *words(path, labels, *BUDGET, *more))
    # before anything more is asked for, and where the answer is gone
    write(labels, {file: answered[file] for file in asked})
    with pytest.raises(InputError, match=refused):
        run("Random", *words(path, labels, *BUDGET, *more))
    write(labels, {file: truth[file] for file in asked if file != name})
    with pytest.raises(InputError, match=f"{name} was {truth[name]} when this run was trained on it, now it has none"):
        run("Random", *words(path, labels, *BUDGET, *more))
    labels.write_bytes(before)
    with pytest.raises(LabelsNeeded):
        run("Random", *words(path, labels, *BUDGET, *more))


def test_a_label_that_was_used_stays_when_the_run_is_done(folder, tmp_path):
    path, truth = folder
    labels, more = tmp_path / "labels.csv", [*BUDGET, "--rounds", "1", "--save_path", str(tmp_path), "--seed", "5"]
    write(labels, truth)
    run("Random", *words(path, labels, *more))
    run("Random", *words(path, labels, *more))
    with open(tmp_path / "random-seed5" / "queries.csv", newline="") as file:
        used = sorted(truth)[int(next(csv.DictReader(file))["index"])]
    write(labels, truth | {used: "cat" if truth[used] != "cat" else "dog"})
    with pytest.raises(InputError, match=f"{used} was {truth[used]} when this run was trained on it"):
        run("Random", *words(path, labels, *more))


def test_names_may_begin_and_end_with_a_blank(tmp_path):
    """The run's own list has these names as they are; a blank added by hand is not part of the name."""
    (tmp_path / "labels.csv").write_text("file,label\n lead.png,fox \nb.png,dog\n b.png , dog \n")
    filled = labels.fill(tmp_path / "labels.csv", [" lead.png", "b.png"], np.array([-1, -1]), ["dog", "fox "])
    assert filled.tolist() == [1, 0]


def test_a_grid_says_that_its_runs_wait(folder, tmp_path, capsys):
    path, _ = folder
    cells = ["--models", "ResNet", "--methods", "Random", "--save_path", str(tmp_path / "runs"), "--threads", "1"]
    more = [word for word in words(path, tmp_path / "labels.csv", *BUDGET) if word not in ("--image_size", "64")]
    with pytest.raises(LabelsNeeded, match="1 of 1 runs wait for labels; fill in their lists and run the same"):
        runner.main([*cells, *more, "--amp", "off", "--device", "cpu"])
    printed = capsys.readouterr()
    assert "waits for labels: round 1/4 (6 labels, 20%): 10 images need a label: fill in" in printed.err
    assert "failed" not in printed.err + printed.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nunlabeled/99.png,cat\n", r"line 2: there is no training image 'unlabeled/99.png'; names are rel"),
        ("file,label\nunlabeled/01.png,cow\n", "line 2: 'cow' is not a class; use cat, dog, fox"),
        ("file,label\nunlabeled/01.png,cat\nunlabeled/01.png,dog\n", "line 3: unlabeled/01.png is dog, but cat by its"),
        ("unlabeled/01.png,cat\n", "its first line must be file,label"),
        ("file;label\nunlabeled/01.png;cat\n", "it is 'file;label'; save it as CSV with commas"),
        ("", "its first line must be file,label"),
        ("file,label\n\xff", "is not UTF-8 text; save it as CSV in UTF-8"),
        ("file,label\nunlabeled/01.png,cat,dog\n", "line 2: has more values than the first line has columns; put"),
        ("file,label\nunlabeled/1, 2.png,cat\n", "line 2: has more values than the first line has columns; put"),
        ("file,label,label\nunlabeled/01.png,cat,dog\n", "has two columns label; keep one"),
        ("file,label\n,cat\n", "line 2: there is no training image ''"),
    ],
)
def test_a_wrong_file_of_labels_is_refused(text, message, folder, tmp_path):
    (tmp_path / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as refused:
        data.load(parse("Random", *words(folder[0], tmp_path / "labels.csv", *BUDGET)))
    assert "\n" not in str(refused.value)


def test_empty_rows_are_none(tmp_path):
    """A spreadsheet keeps an emptied row as a lone comma."""
    (tmp_path / "labels.csv").write_text("file,label\r\n,\r\na.png,cat,,\r\n\r\n , \r\n")
    assert labels.rows(tmp_path / "labels.csv") == [(3, ("a.png", "cat"))]


def test_what_cannot_be_is_refused(folder, tmp_path):
    path, _ = folder
    labels = tmp_path / "labels.csv"
    with pytest.raises(
        InputError, match=r"30 images in train/ lie in no class's folder \(the first: train/unlabeled/00"
    ):
        data.load(parse("Random", *WORDS, *BUDGET, "--dataset", str(path)))
    kd = parse("KD", *words(path, labels, *BUDGET), "--save_path", str(tmp_path))
    for needs_all in (teachers.provide, lambda args: teachers.check(args, data.load(args))):  # a grid's job, a run
        with pytest.raises(
            InputError, match=r"--teacher_labels all: 30 training images have no label .* add --teacher_labels"
        ):
            needs_all(kd)
    with pytest.raises(InputError, match=r"--labels .*: names images by their files; --dataset digits is not a folder"):
        data.load(parse("Random", "--labels", str(labels)))
    with pytest.raises(InputError, match=r"moved: neither a known data set .* nor an existing"):
        data.load(parse("Random", *words(tmp_path / "moved", labels)))


def test_a_plan_needs_no_labels(folder, tmp_path, capsys):
    more = [*BUDGET, "--image_size", "32", "--dry_run"]
    run("Random", *words(folder[0], tmp_path / "none.csv", *more), model="ResNet")
    assert "round  4   26 labels" in capsys.readouterr().out


@pytest.mark.parametrize("head", ["file,label", "label,file", "file,split,label"])
def test_answers_are_written_in_the_order_of_the_files_columns(tmp_path, head):
    """Regression: appended as file,label whatever the header, they made the next start take a class for an image."""
    path = tmp_path / "labels.csv"
    path.write_text(f"{head}\n")
    labels.add(path, [("a/1.png", "dog"), ("b, 2.png", "cat")])
    assert [row for _, row in labels.rows(path)] == [("a/1.png", "dog"), ("b, 2.png", "cat")]


def test_answers_of_two_runs_wait_for_each_other(tmp_path):
    path = tmp_path / "labels.csv"
    with locked(tmp_path / ".labels.csv.lock", "the other"):
        adding = threading.Thread(target=labels.add, args=(path, [("a.png", "cat")]))
        adding.start()
        adding.join(0.3)
        assert adding.is_alive() and not path.exists()
    adding.join(10)
    assert path.read_text() == "file,label\na.png,cat\n"


def test_a_name_that_labels_cannot_hold_is_refused_before_it_is_asked_for(folder, tmp_path):
    """A labels file is UTF-8: an answer for any other name would match no image."""
    path, _ = folder
    shutil.copy(path / "train" / "unlabeled" / "00.png", path / "train" / "unlabeled" / os.fsdecode(b"bad\xff.png"))
    with pytest.raises(
        InputError, match=r"--labels .*labels\.csv: .* names of 1 training images do not allow, as .*bad"
    ):
        data.load(parse("Random", *words(path, tmp_path / "labels.csv")))


def test_a_name_with_a_carriage_return_is_refused_too(folder, tmp_path):
    """Before Python 3.13 csv writes it without quotes, so the list that the run made could not be read back."""
    path, _ = folder
    shutil.copy(path / "train" / "unlabeled" / "00.png", path / "train" / "unlabeled" / "a\rb.png")
    with pytest.raises(InputError, match=r"names of 1 training images do not allow, as 'unlabeled/a\\rb.png'; rename"):
        data.load(parse("Random", *words(path, tmp_path / "labels.csv")))


def test_two_links_to_one_file_of_labels_have_one_lock(tmp_path):
    (tmp_path / "shared").mkdir()
    link = tmp_path / "mine.csv"
    link.symlink_to("shared/labels.csv")
    labels.add(link, [("a.png", "cat")])
    assert (tmp_path / "shared" / "labels.csv").read_text() == "file,label\na.png,cat\n"
    assert (tmp_path / "shared" / ".labels.csv.lock").exists() and not (tmp_path / ".mine.csv.lock").exists()
