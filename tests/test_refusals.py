"""What goes wrong on a user's machine ends in one line and status 2, or the run goes on; nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from .conftest import BUDGET, ROOT, TOY
from .launcher import launch

WORDS = [*TOY, *BUDGET, "--train_epochs", "1", "--rounds", "1"]


def refused(done, *texts):
    """One line on stderr after the progress bars, status 2, every text in it."""
    line = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert line.startswith("main.py: error: ") and all(text in line for text in texts), line


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = launch("Random", *WORDS, "--save_path", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished run's folder."""
    shutil.copytree(finished / "random-seed5", tmp_path / "random-seed5")
    return tmp_path / "random-seed5"


def again(folder, *words, **options):
    return launch("Random", *WORDS, "--save_path", str(folder.parent), *words, **options)


def test_a_config_that_is_a_list(folder):
    (folder / "config.json").write_text("[1, 2]")
    refused(again(folder), "config.json: not readable; choose another --expt or delete the folder")


def test_a_state_with_a_flipped_bit(folder):
    path = folder / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    refused(again(folder), "state.pt: damaged", "delete it to start the run anew")


def test_a_state_that_is_none(folder):
    torch.save({"round": 1}, folder / "state.pt")
    refused(again(folder), "state.pt: is no run's state; delete it")


def test_a_state_of_other_networks(folder):
    state = torch.load(folder / "state.pt", weights_only=True)
    training = {"modules": {"net.features.0.weight": torch.zeros(3)}, "optimizers": {}, "schedule": {}}
    torch.save(state | {"round": 0, "training": training}, folder / "state.pt")
    refused(again(folder), "state.pt: is not of this run's networks", "delete it to start the run anew")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {name: value.half() for name, value in weights.items()}, "its weights are float16; save them"),
        (lambda weights: {name: value * float("nan") for name, value in weights.items()}, "values that are not finite"),
        (lambda weights: {name: value[:1] for name, value in weights.items()}, "not a AlexNet teacher of 10 classes"),
        (lambda weights: dict.fromkeys(weights, 1), "holds no network's state dict"),
    ],
)
def test_a_teacher_that_cannot_be_one(change, message, teacher, tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(change(torch.load(teacher, weights_only=True)["state_dict"]), path)
    refused(launch("KD", *WORDS, "--teacher", str(path), "--save_path", str(tmp_path)), f"--teacher {path}", message)


def test_more_memory_than_there_is(tmp_path):
    code = "import torch; torch.Tensor.backward = lambda *_: torch.empty(2**46)"
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), code=code)
    refused(done, "memory does not suffice", "lower --batch_size")


def test_a_latent_beyond_reason(tmp_path):
    done = launch("EnCoDe", *WORDS, "--save_path", str(tmp_path), "--latent_dim", "1000000000")
    refused(done, "--latent_dim: 1000000000 is out of range; it must be at least 1 and at most 4096")


def test_a_folder_that_is_removed_while_the_run_goes_on(tmp_path):
    """At the end of its first epoch."""
    code = f"""
import shutil
from common import training
save = training.Session.save
training.Session.save = lambda session: (shutil.rmtree({str(tmp_path / "random-seed5")!r}), save(session))
"""
    refused(launch("Random", *WORDS, "--save_path", str(tmp_path), code=code), "random-seed5", "No such file")


def test_a_run_whose_reader_is_gone_goes_on(tmp_path):
    """As behind `| head -1`: the log has every line."""
    code = "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), code=code)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in (tmp_path / "random-seed5" / "log.txt").read_text()


def test_a_terminal_that_lacks_a_character(tmp_path):
    done = launch("Random", *WORDS, "--save_path", str(tmp_path / "ñ"), code="import sys; sys.stdout.reconfigure(encoding='ascii')")  # fmt: skip  # noqa: E501
    assert done.returncode == 0 and "done: " in done.stdout and "?" in done.stdout.splitlines()[-1]


def test_the_log_goes_to_the_home_that_is_meant(tmp_path):
    code = f"import os; os.environ['HOME'] = {str(tmp_path)!r}"
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), "--log_path", "~/logs", code=code)
    assert done.returncode == 0 and (tmp_path / "logs" / "random-seed5.txt").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    code = "from common import training; training.Session.step = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)"
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), code=code)
    assert done.returncode == 130 and done.stderr.strip().endswith("goes on from the last finished epoch")


def test_ctrl_c_during_the_imports_leaves_no_traceback(tmp_path):
    # a run that is not over before the signal comes, on however busy a machine
    command = [sys.executable, "main.py", *WORDS, "--train_epochs", "10000", "--save_path", str(tmp_path)]
    folder = ROOT / "AlexNet" / "CIFAR10" / "KD"
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        maps = f"/proc/{process.pid}/maps"
        while "libtorch" not in open(maps).read():  # noqa: SIM115 - torch is being imported
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err


def test_a_shared_teachers_folder_with_other_flags_says_what_helps(tmp_path):
    words = [*WORDS, "--save_path", str(tmp_path), "--teacher_batch_size", "40", "--teacher_epochs"]
    assert launch("KD", *words, "1").returncode == 0
    (tmp_path / "teachers" / "AlexNet-digits-64px.pt").unlink()
    done = launch("KD", *words, "2", "--expt", "other")
    refused(done, "--train_epochs (was 1, now 2)", "use its --teacher_* flags, or delete", "to train another teacher")
    assert json.loads((tmp_path / "kd-seed5" / "config.json").read_text())["teacher_epochs"] == 1
