"""config.json records what a run was made with, and resuming with something else is reported and marked."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess

import pytest
import torch

from common import budget, data, provenance, runs
from common.errors import InputError
from common.schema import TABLES

from .conftest import BUDGET, ROOT, TOY, parse, run

RECORD = {
    "commit": "a" * 40, "dirty": "", "torch": "2.14.1", "machine": "A CPU, AVX2", "device": "cpu", "threads": 1,
    "amp": "off", "fast": "auto", "compile": "off",
}  # fmt: skip


def test_a_record_names_code_torch_machine_and_how_they_were_used():
    args = parse("KD", "--fast", "off")
    found = provenance.describe(args)
    assert found.keys() == RECORD.keys()
    assert found["torch"] == torch.__version__ and found["machine"]
    assert (found["device"], found["threads"], found["amp"], found["fast"]) == ("cpu", 1, "off", "off")
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert found["commit"] == head.stdout.strip()  # both empty outside a checkout


def test_a_record_has_what_amp_and_compile_came_to_and_not_the_users_word():
    """`auto` does not determine it: two runs with the same flag may differ in precision."""
    args = parse("KD", "--amp", "auto")
    args.precision, args.compile = "bf16", "graph"
    found = provenance.describe(args)
    assert (found["amp"], found["compile"]) == ("bf16", "graph")


def test_one_uncommitted_change_of_the_code_is_told_from_another(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    read = provenance._commit.__wrapped__
    assert read() == ("", "")  # no repository
    git("init")
    main, model = tmp_path / "AlexNet" / "CIFAR10" / "KD" / "main.py", tmp_path / "common" / "networks" / "alexnet.py"
    for path in (main, model, tmp_path / "README.md"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    commit, dirty = read()
    assert re.fullmatch("[0-9a-f]{40}", commit) and dirty == ""
    for other in ("README.md", "scratch.py", "common/notes.txt"):  # no result depends on them
        (tmp_path / other).write_text("2")
    assert read() == (commit, "")
    found = {""}
    for path in (model, main):
        path.write_text("2")
        found.add(read()[1])
    git("add", ".")
    assert read()[1] in found - {""}  # what is staged is not committed
    model.write_text("3")
    found.add(read()[1])
    model.unlink()
    found.add(read()[1])
    (tmp_path / "common" / "mine.py").write_text("1")  # untracked
    found.add(read()[1])
    assert len(found) == 6 and all(re.fullmatch("[0-9a-f]{8}", text) for text in found - {""})
    (tmp_path / "common" / "mine.py").unlink()
    git("checkout", "HEAD", "--", "common", "AlexNet")
    model.chmod(0o755)  # it says the same
    assert read() == (commit, "")
    model.chmod(0o644)
    copied = model.rename(model.with_name("copied.py"))
    git("add", "-A")  # git detects renames among staged files
    renamed = read()[1]
    shutil.copy(copied, model)
    git("add", "-A")
    assert read()[1] not in (renamed, "")
    model.write_text("")
    empty = read()[1]
    model.unlink()
    assert read()[1] == renamed != empty
    with open(bytes(tmp_path) + b"/common/\xe9.py", "w"):
        assert read()[1] != renamed


def test_the_machine_is_named_with_its_units(tmp_path, monkeypatch):
    """Two machines of one model name, of which only one has AMX, give different bytes in bfloat16."""
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: A CPU: 1 GHz\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for tiles, name in [(True, "A CPU: 1 GHz, AVX512, AMX"), (False, "A CPU: 1 GHz, AVX512")]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tiles=tiles: tiles)
        assert provenance.machine(torch.device("cpu")) == name


def test_changes_are_named():
    assert provenance.changes(RECORD, RECORD) == ""
    assert provenance.changes(RECORD | {"dirty": False}, RECORD) == ""  # from before it was a hash
    assert provenance.changes(RECORD | {"dirty": True}, RECORD | {"dirty": "0123abcd"}) == "dirty True > 0123abcd"
    older = {name: value for name, value in RECORD.items() if name != "compile"}  # from before the flag
    assert provenance.changes(older, RECORD) == ""
    assert provenance.changes(older, RECORD | {"compile": "graph"}) == "compile off > graph"
    now = RECORD | {"threads": 2, "commit": "b" * 40}
    assert provenance.changes(RECORD, now) == "commit aaaaaaaaaa > bbbbbbbbbb, threads 1 > 2"


def test_config_json_names_the_teacher_and_the_sitting(tmp_path, teacher):
    run("KD", *TOY, *BUDGET, "--rounds", "1", "--teacher", str(teacher), "--save_path", str(tmp_path))
    config = json.loads((tmp_path / "kd-seed5" / "config.json").read_text())
    assert [sitting.keys() for sitting in config["made_with"]] == [RECORD.keys()]
    assert re.fullmatch("[0-9a-f]{64}", config["teacher_sha256"])
    assert (
        not {"amp", "precision", "threads", "device", "fast", "compile"} & config.keys()
    )  # recorded where it applies: in made_with


def open_run(folder, made_with=RECORD, amp="auto", **config):
    return runs.Run(folder, {"lr_task": 0.1} | config, made_with, amp)


def test_going_on_with_something_else_is_logged_and_marked(tmp_path):
    first = open_run(tmp_path)
    assert first.changed == ""
    first.save()
    first.close()
    now = RECORD | {"threads": 2, "torch": "2.15.0"}
    second = open_run(tmp_path, now)
    assert second.changed == "torch 2.14.1 > 2.15.0, threads 1 > 2"
    assert "going on with torch 2.14.1 > 2.15.0, threads 1 > 2" in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["made_with"] == [RECORD]  # it only reads so far
    second.save()
    second.close()
    assert json.loads((tmp_path / "config.json").read_text())["made_with"] == [RECORD, now]
    third = open_run(tmp_path, now)  # a sitting like an earlier one is recorded once
    assert json.loads((tmp_path / "config.json").read_text())["made_with"] == [RECORD, now]
    third.close()


def test_a_round_that_was_elsewhere_in_between_is_marked(tmp_path):
    """Regression: only the session that finished it was compared with the run's first one."""
    both = "threads 1 > 2; threads 1 > 4"
    for threads, expected in ((1, ""), (2, "threads 1 > 2"), (4, both), (1, both)):
        begun = open_run(tmp_path, RECORD | {"threads": threads})
        begun.state["training"] = {"epoch": 1}
        assert begun.round_changed == expected
        begun.save()
        begun.close()
    last = open_run(tmp_path)
    last.commit_round()
    assert last.round_changed == ""


def test_a_round_of_another_sitting_is_marked_in_timing(tmp_path):
    words = ["--save_path", str(tmp_path), "--train_epochs", "1"]
    args = parse("Random", *words, "--rounds", "1")
    run("Random", *TOY, *BUDGET, *words, "--rounds", "1")
    path = tmp_path / "random-seed5" / "config.json"
    config = json.loads(path.read_text())
    config["rounds"] = 0  # as if it had been killed after one round of three, with three threads
    config["made_with"][0]["threads"] = 3
    path.write_text(json.dumps(config))
    state = torch.load(path.with_name("state.pt"), weights_only=True)
    state["labeled"] = data.load(args).pool[:100]
    runs.write_tensors(path.with_name("state.pt"), state)
    run("Random", *TOY, *BUDGET, *words)
    with open(path.with_name("timing.csv"), newline="") as file:
        assert [row["changed"] for row in csv.DictReader(file)] == ["", "threads 3 > 1", "threads 3 > 1"]


def test_another_precision_wants_an_explicit_flag(tmp_path):
    begun = open_run(tmp_path, RECORD | {"amp": "bf16"})
    begun.save()
    begun.close()
    with pytest.raises(InputError, match=r"--amp auto: .* with bf16, .* would use off; add --amp bf16 .* --amp off"):
        open_run(tmp_path, RECORD)
    again = open_run(tmp_path, RECORD, amp="off")
    assert again.changed == "amp bf16 > off"
    again.close()
    open_run(tmp_path, RECORD | {"amp": "bf16"}, amp="bf16").close()


def test_a_run_of_earlier_code_goes_on(tmp_path):
    """Its config.json has no record and lacks later flags, and its tables lack columns."""
    first = open_run(tmp_path)
    first.add("results", model="AlexNet", seed=5, test_accuracy="61.00")
    first.state["results"] = {"model": ["AlexNet"], "test_accuracy": ["61.00"], "seed": [5]}
    first.state["timing"] = {"round": ["0"], "train_seconds": ["3.1"]}
    first.save()
    first.close()
    (tmp_path / "config.json").write_text(json.dumps({"lr_task": 0.1, "amp": "off", "threads": 1}))
    again = open_run(tmp_path, ce_wt=1.0, teacher_seed=2023)
    assert again.last("results") == dict.fromkeys(TABLES["results"], "") | {
        "model": "AlexNet", "test_accuracy": "61.00", "seed": 5,
    }  # fmt: skip
    assert again.last("timing")["train_seconds"] == "3.1" and again.state["queries"]["round"] == []
    assert again.changed == "begun without a record of code and machine"
    again.close()
    with pytest.raises(InputError, match=r"--ce_wt \(was 1.0, now 0.5\)"):
        open_run(tmp_path, ce_wt=0.5)
    with pytest.raises(InputError, match="was started with off"):
        open_run(tmp_path, RECORD | {"amp": "bf16"})


def test_a_column_that_no_table_has_is_an_error(tmp_path):
    begun = open_run(tmp_path)
    with pytest.raises(KeyError, match=r"results.csv has no column acuracy"):
        begun.add("results", acuracy=61)


def test_own_teachers_are_noted_round_by_round(tmp_path):
    begun = open_run(tmp_path)
    begun.record_teacher("a", 0)
    begun.record_teacher("b", 1)
    begun.record_teacher("b", 1)
    assert json.loads((tmp_path / "config.json").read_text())["teacher_sha256"] == ["a", "b"]


def test_the_next_round_has_what_its_strategy_chose(tmp_path):
    """Only the state holds the pools: they come back after a kill."""
    args = parse("Random", "--save_path", str(tmp_path))
    images = data.load(args)
    begun = runs.begin(args, images)
    this_round = next(budget.rounds(args, begun, images))
    begun.save()
    begun.close()
    again = next(budget.rounds(args, runs.begin(args, images), images))
    assert torch.equal(again.labeled, this_round.labeled) and torch.equal(again.unlabeled, this_round.unlabeled)


def test_config_json_has_the_classes_of_the_pool_without_the_validation_images(tmp_path):
    args = parse("Random", "--save_path", str(tmp_path))
    images = data.load(args)
    images.labels[images.val], images.labels[images.pool] = 9, 0
    images.labels[images.pool[:3]] = 1
    begun = runs.begin(args, images)
    assert begun.config["pool"] == {"classes": images.classes, "images": [157, 3, *[0] * 8]}


def test_a_run_goes_on_with_other_flags_where_they_change_no_number():
    """All other flags are part of the run's identity, and of a fair teacher's."""
    args = vars(parse("EnCoDe"))
    assert args.keys() - runs.configuration(args).keys() == {
        *("data_dir", "data_source", "save_path", "log_path", "tensorboard", "dry_run", "recipe", "labels"),
        *("device", "threads", "amp", "precision", "fast", "compile"),
    }


def test_images_replaced_between_two_sittings_are_refused(tmp_path):
    """Including those of the test set, which would mix its rows."""
    args = parse("Random", "--save_path", str(tmp_path))
    images = data.load(args)
    begun = runs.begin(args, images)
    begun.save()
    begun.close()
    for changed, what in (({"fingerprint": "0"}, "other training images"), ({"test_fingerprint": "0"}, "other test")):
        with pytest.raises(InputError, match=f"random-seed5 holds a run with other flags or data: {what}"):
            runs.begin(args, dataclasses.replace(images, **changed))
    runs.begin(args, images).close()
