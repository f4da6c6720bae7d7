"""Errors on a user's machine end in one line and status 2, or the run continues; nothing is lost."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from common import data, evaluation, networks
from common.errors import InputError
from common.teachers import store

from .conftest import BUDGET, ROOT, TOY, parse
from .launcher import launch

WORDS = [*TOY, *BUDGET, "--train_epochs", "1", "--rounds", "1"]


def refused(done, *texts):
    """Expects one line on stderr after the progress bars with all these texts, and status 2."""
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
    refused(again(folder), "config.json: not readable; put a copy back or delete the folder")


def test_a_state_with_a_flipped_bit(folder):
    path = folder / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    refused(again(folder), "state.pt: damaged", "delete it to start the run anew")


def test_a_state_that_is_none(folder):
    torch.save({"round": 1}, folder / "state.pt")
    refused(again(folder), "state.pt: is not a run's state (it has no ", "); delete it")


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
        (lambda weights: {name: value[:1] for name, value in weights.items()}, "AlexNet's teacher for 10 classes"),
        (lambda weights: dict.fromkeys(weights, 1), "holds no network's state dict"),
        (lambda weights: dict(enumerate(weights.values())), "holds no network's state dict"),
        (
            lambda weights: {"state_dict": weights, "record": [1]},
            "its record of how it was trained is not valid; save the",
        ),
        (lambda weights: {name: value.to(torch.complex64) for name, value in weights.items()}, "weights are complex64"),
        (lambda weights: {name: value.to_sparse() for name, value in weights.items()}, "its weights are sparse_coo"),
        (lambda weights: {name: value.char() for name, value in weights.items()}, "its weights are int8; save them as"),
        (lambda weights: {name: value.long() for name, value in weights.items()}, "the weights of AlexNet's teacher"),
    ],
)
def test_a_teacher_that_cannot_be_one(change, message, teacher, tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(change(torch.load(teacher, weights_only=True)["state_dict"]), path)
    with pytest.raises(InputError, match=rf"^--teacher {path}: .*{message}"):
        store.load(parse("KD"), data.load(parse("KD")), path)


def test_a_rounds_teacher_of_other_images_of_the_same_name(first_round):
    """Regression: the weights of a run's round said nothing of their images, and any of the same name took them."""
    args, run, images, this_round = first_round("Random", "--network", "teacher")
    evaluation.record(args, run, this_round, networks.build(args, "teacher"), evaluation.Fitted(1, 50.0, 1.0, 1))
    path, kd = run.folder / "round_00.pt", parse("KD")
    store.load(kd, images, path)
    with pytest.raises(InputError, match="was trained on other images under the name digits"):
        store.load(kd, dataclasses.replace(images, source="0" * 64), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "0" * 64}, "was trained on other images under the name digits"),
        ({"model": "VGG"}, "was trained with model VGG, this experiment has AlexNet"),
        ({"dataset": "svhn"}, "was trained with dataset svhn, this experiment has digits"),
        ({"classes": ["a", "b"]}, r"was trained with classes \['a', 'b'\], this"),
        ({"image_size": 32}, "was trained with image_size 32, this experiment has 64"),
    ],
)
def test_a_teacher_of_another_experiment(change, message, images, tmp_path):
    args = parse("KD")
    store.check(args, images, tmp_path, {})  # unknown
    store.check(args, images, tmp_path, store.identity(args, images))
    with pytest.raises(InputError, match=rf"^--teacher {tmp_path}: {message}"):
        store.check(args, images, tmp_path, store.identity(args, images) | change)


def test_a_teacher_whose_outputs_are_not_finite(teacher, tmp_path):
    """Its weights are finite, and the student's learning rate is not to blame."""
    path = tmp_path / "teacher.pt"
    weights = torch.load(teacher, weights_only=True)["state_dict"]
    torch.save({name: value * 1e30 for name, value in weights.items()}, path)
    done = launch("KD", *WORDS, "--teacher", str(path), "--save_path", str(tmp_path))
    refused(done, "--teacher: its outputs for some images are not finite; train the teacher again")
    assert not list((tmp_path / "teachers").glob("outputs-*"))


def test_more_memory_than_there_is(tmp_path):
    code = "import torch; torch.Tensor.backward = lambda *_: torch.empty(2**46)"
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), code=code)
    refused(done, "memory does not suffice", "use a smaller --batch_size")


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
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), code=code)
    refused(done, f"{tmp_path / 'random-seed5' / 'state.pt'}: its folder is not there any more")


def test_a_run_whose_reader_is_gone_goes_on(tmp_path):
    """As with `| head -1`: the log has every line."""
    code = "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), code=code)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in (tmp_path / "random-seed5" / "log.txt").read_text()


@pytest.mark.parametrize("how", ["read", "closed"])
def test_a_run_without_a_stdout_goes_on(how, tmp_path):
    """As with `| true`, whose pipe nobody reads, and `>&-`, which leaves Python without a stream."""
    pipe = "read, write = os.pipe(); os.close(read); sys.stdout = open(write, 'w')"
    code = pipe if how == "read" else "os.close(1); sys.stdout = None"
    done = launch("Random", *WORDS, "--save_path", str(tmp_path), code=f"import os, sys; {code}")
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in (tmp_path / "random-seed5" / "log.txt").read_text()


def test_a_folder_whose_name_is_no_text(tmp_path):
    """A byte that is not UTF-8, as Python represents it."""
    done = launch("Random", *WORDS, "--save_path", os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    assert done.returncode == 0, done.stderr
    folder = os.fsencode(tmp_path) + b"/\xff/random-seed5"
    assert "\\udcff/random-seed5/results.csv" in open(folder + b"/log.txt", encoding="utf-8").read()  # noqa: SIM115
    assert b"\n" in open(folder + b"/results.csv", "rb").read()  # noqa: SIM115


def test_a_disk_that_is_full_in_the_middle_of_a_run(small_disk):
    """On 4 MB a student's weights fit, its state does not. torch itself reports that as a RuntimeError."""
    refused(launch("Random", *WORDS, "--save_path", str(small_disk)), "random-seed5/", "No space left on device")


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
    # long enough not to finish before the signal comes, however busy the machine
    command = [sys.executable, "main.py", *WORDS, "--train_epochs", "10000", "--save_path", str(tmp_path)]
    folder = ROOT / "AlexNet" / "CIFAR10" / "KD"
    # where tests run in the background, Ctrl-C is ignored, and children inherit that
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, **pipes, **heed) as process:
        maps = f"/proc/{process.pid}/maps"
        while "libtorch" not in open(maps).read():  # noqa: SIM115 - torch is being imported
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in err


def test_a_shared_teachers_folder_with_other_flags_says_what_helps(tmp_path):
    words = [*WORDS, "--save_path", str(tmp_path), "--teacher_batch_size", "40", "--teacher_epochs"]
    assert launch("KD", *words, "1").returncode == 0
    (tmp_path / "teachers" / "AlexNet-digits-64px.pt").unlink()
    done = launch("KD", *words, "2", "--expt", "other")
    refused(done, "--train_epochs (was 1, now 2)", "use its --teacher_* flags, or delete", "to train another teacher")
    assert json.loads((tmp_path / "kd-seed5" / "config.json").read_text())["teacher_epochs"] == 1
