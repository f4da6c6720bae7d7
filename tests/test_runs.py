"""A run killed at any moment ends with the bytes it would have had; and a folder has one owner."""

import json
import signal

import numpy as np
import pytest
import torch

from common import data, runs
from common.errors import InputError

from .conftest import BUDGET, TOY, parse, run
from .launcher import launch

WORDS = [*TOY, *BUDGET, "--train_epochs", "2", "--warmup_epochs", "1"]
KILLS = {  # in its own process: SIGKILL at a chosen call, so that nothing can be cleaned up
    "training": "from common import training; kill_at(training.Session, 'step', 17)",  # round 2, epoch 2
    "saving": "import torch; kill_at(torch, 'save', 6, half=True)",  # while writing a state
    "replacing": "import os; kill_at(os, 'replace', 12)",
    "querying": "from common import samplers; kill_at(samplers.Sampler, 'query', 2)",
    "recording": "from common import budget; kill_at(budget.Round, 'query', 1)",  # tested, not yet queried
}
KILL_AT = """
import os, signal
def kill_at(owner, name, count, half=False):
    original, calls = getattr(owner, name), []
    def dying(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            if half:
                args[1].write(b'half a file')
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, dying)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, teacher):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = launch("EnCoDe", *WORDS, "--teacher", str(teacher), "--save_path", str(folder))
    assert done.returncode == 0, done.stderr
    return {
        name: (folder / "encode-seed5" / name).read_bytes() for name in ("results.csv", "queries.csv", "history.csv")
    }


def test_a_killed_run_of_students_with_batch_norm_ends_with_the_same_bytes(tmp_path, teacher):
    words = [*WORDS, "--fold_bn", "--teacher", str(teacher), "--save_path", str(tmp_path)]
    killed = launch("EnCoDe", *words, code=f"{KILL_AT}\n{KILLS['training']}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for name in ("encode", "whole"):
        done = launch("EnCoDe", *words, "--expt", name)
        assert done.returncode == 0, done.stderr
    found = [tmp_path / f"{name}-seed5" for name in ("encode", "whole")]
    for name in ("results.csv", "queries.csv", "history.csv"):
        assert (found[0] / name).read_bytes() == (found[1] / name).read_bytes(), name
    plain = torch.load(found[1] / "round_00.pt", weights_only=True)["state_dict"]
    assert not any("running" in name for name in plain)  # a batch norm's statistics


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_resumed_ends_with_the_same_bytes(moment, tmp_path, teacher, uninterrupted):
    words = [*WORDS, "--teacher", str(teacher), "--save_path", str(tmp_path)]
    killed = launch("EnCoDe", *words, code=f"{KILL_AT}\n{KILLS[moment]}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = launch("EnCoDe", *words)
    assert resumed.returncode == 0, resumed.stderr
    for name, expected in uninterrupted.items():
        assert (tmp_path / "encode-seed5" / name).read_bytes() == expected, name


def test_a_teachers_training_resumes_too(tmp_path):
    words = [*TOY, "--network", "teacher", "--fold_bn", "--save_path", str(tmp_path)]
    code = f"{KILL_AT}\nfrom common import training; kill_at(training.Session, 'step', 7)"
    assert launch("Single", *words, code=code).returncode == -signal.SIGKILL
    resumed = launch("Single", *words)
    assert "going on at round 1" in resumed.stdout
    whole = launch("Single", *words, "--expt", "whole")
    assert whole.returncode == 0, whole.stderr
    history = [(tmp_path / f"{name}-seed5" / "history.csv").read_bytes() for name in ("single", "whole")]
    assert history[0] == history[1]
    weights = [
        torch.load(tmp_path / f"{name}-seed5" / "round_00.pt", weights_only=True)["state_dict"]
        for name in ("single", "whole")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_finished_teacher_whose_file_is_gone_is_published_again(tmp_path, capsys):
    """Runs that began with it are told to restore it."""
    words = [*TOY, "--num_images", "48", "--num_val", "8", "--image_size", "8", "--train_epochs", "1"]
    words += ["--network", "teacher", "--save_path", str(tmp_path)]
    path = tmp_path / "teachers" / "ResNet-digits-8px.pt"
    run("Single", *words, model="ResNet")
    first = torch.load(path, weights_only=True)
    path.unlink()
    run("Single", *words, model="ResNet")
    again = torch.load(path, weights_only=True)
    assert all(torch.equal(first["state_dict"][name], again["state_dict"][name]) for name in first["state_dict"])
    assert first["record"].keys() == again["record"].keys()
    capsys.readouterr()
    run("Single", *words, model="ResNet")
    assert "saved to" not in capsys.readouterr().out
    own = tmp_path / "single-seed5" / "round_00.pt"
    own.unlink()
    run("Single", *words, model="ResNet")
    path.unlink()
    with pytest.raises(InputError, match=f"^{own}: is gone, and so is {path}; delete {own.parent} to train this teach"):
        run("Single", *words, model="ResNet")


def test_a_run_whose_state_is_gone_is_not_replaced_by_one_of_other_flags(tmp_path, capsys):
    """The state is large and may be deleted, the results are worth keeping. The same flags reproduce them."""
    words = [*TOY, "--num_images", "48", "--num_val", "8", "--image_size", "8", "--initial_budget", "10", "--budget",
             "10", "--subset", "20", "--rounds", "2", "--train_epochs", "1", "--save_path", str(tmp_path)]  # fmt: skip
    folder = tmp_path / "random-seed5"
    run("Random", *words, model="ResNet")
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".json")}
    for gone in ("state.pt", "round_00.pt", "round_01.pt"):
        (folder / gone).unlink()
        with pytest.raises(InputError, match=r"holds a run with other flags or data: --lr_task .*now 0\.5\); use"):
            run("Random", *words, "--lr_task", "0.5", model="ResNet")
    assert all((folder / name).read_bytes() == content for name, content in kept.items())
    capsys.readouterr()
    run("Random", *words, model="ResNet")
    assert f"{folder}: state.pt, from which it would resume, is gone; it starts over\n" in capsys.readouterr().out
    assert (folder / "results.csv").read_bytes() == kept["results.csv"]


def open_run(tmp_path, *words):
    args = parse("Random", "--save_path", str(tmp_path), *words)
    return runs.begin(args, data.load(args))


def test_a_second_process_is_refused(tmp_path):
    run = open_run(tmp_path)
    second = launch("Random", *TOY, *BUDGET, "--save_path", str(tmp_path))
    assert second.returncode == 2
    assert (
        second.stderr.strip()
        .splitlines()[-1]
        .endswith("another process is running this; wait for it, or choose another --expt or --seed")
    )
    run.close()
    assert open_run(tmp_path).state["round"] == 0


def test_a_folder_with_another_configuration_is_refused_by_flag(tmp_path):
    open_run(tmp_path, "--lr_task", "0.2").close()  # nothing has been done: a corrected command may follow
    run = open_run(tmp_path)
    run.save()
    run.close()
    with pytest.raises(InputError, match=r"--budget \(was 60, now 50\), --lr_task \(was 0.001, now 0.5\)"):
        open_run(tmp_path, "--lr_task", "0.5", "--budget", "50")
    open_run(tmp_path, "--threads", "1").close()  # where it runs does not change what it computes


def test_an_unreadable_state_is_an_error(tmp_path):
    run = open_run(tmp_path)
    run.save()
    run.close()
    (run.folder / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"state\.pt: not readable"):
        open_run(tmp_path)


def test_the_files_of_a_run(tmp_path):
    done = launch("Random", *TOY, *BUDGET, "--save_path", str(tmp_path), "--log_path", str(tmp_path / "logs"))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "random-seed5"
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {
        "config.json", "results.csv", "queries.csv", "timing.csv", "history.csv", "state.pt",
        "round_00.pt", "round_01.pt", "round_02.pt",
        "predictions_00.npz", "predictions_01.npz", "predictions_02.npz",
    }  # fmt: skip
    assert (tmp_path / "logs" / "random-seed5.txt").read_text().count("test accuracy") == 3
    config, images = json.loads((folder / "config.json").read_text()), data.load(parse("Random"))
    assert (config["budget"], config["train_data"], config["data"]) == (60, images.source, images.fingerprint)
    content = torch.load(folder / "round_02.pt", weights_only=True)
    assert content["record"]["percent"] == "100" and content["state_dict"]["classifier.2.bias"].shape == (10,)
    rows = (folder / "results.csv").read_text().splitlines()
    assert len(rows) == 4 and len(rows[0].split(",")) == len(rows[1].split(","))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """The second state cannot be written: the first is intact, and the same command resumes from it."""
    words = [*TOY, *BUDGET, "--save_path", str(tmp_path)]
    full = """
import torch
original, calls = torch.save, []
def save(*args, **kwargs):
    calls.append(None)
    if len(calls) == 2:
        raise OSError(28, "No space left on device", str(args[1]))
    return original(*args, **kwargs)
torch.save = save
"""
    failed = launch("Random", *words, code=full)
    assert failed.returncode == 2 and "No space left on device" in failed.stderr and failed.stderr.count("\n") == 1
    assert not list((tmp_path / "random-seed5").glob(".*.tmp"))
    resumed = launch("Random", *words)
    assert resumed.returncode == 0 and "going on at round 1 of 3" in resumed.stdout


def test_predictions_keep_classes_that_no_label_has(tmp_path):
    """A class of 256 or more must not wrap to one of the first, though all test labels fit in a byte."""
    runs.save_predictions(tmp_path / "p.npz", torch.tensor([300, 2]), torch.tensor([3, 2]))
    with np.load(tmp_path / "p.npz") as kept:
        assert kept["predicted"].tolist() == [300, 2] and kept["labels"].tolist() == [3, 2]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    run = open_run(tmp_path)
    run._log.close()
    run._log = open("/dev/full", "w")  # noqa: SIM115 - the run closes it
    with pytest.raises(OSError, match="No space left") as caught:
        run.log("a line")
    assert caught.value.filename == "/dev/full"
    run._log = open(tmp_path / "log.txt", "w")  # noqa: SIM115
    run.close()
