"""Kills at random moments and flipped bits in every kind of tensor file: a few in each run, many with `-m campaign`.

python -m pytest tests/test_campaigns.py -m campaign -n 0      # 100 kills of each method, 400 flips of each file
"""

import io
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from common.errors import Damaged
from common.files import read_tensors

from .conftest import BUDGET, TOY
from .launcher import begin, launch

WORDS = [*TOY, *BUDGET]
FILES = ("results.csv", "queries.csv", "history.csv")


# KD with fair teachers, each in two stages: what is killed may be a teacher's training
FAIR = ["--recipe", "fair", "--batch_size", "40", "--train_epochs", "2", "--views", "2", "--rounds", "2"]
FAIR += ["--teacher_epochs", "1", "--teacher_batch_size", "40"]
FAIR += ["--teacher_pool", "self_training", "--teacher_pool_epochs", "1"]


def words(folder, teacher, *more):
    known = ["--teacher", str(teacher)] if "--recipe" not in more else []
    return [*WORDS, *known, "--save_path", str(folder), "--expt", "run", *more]


def begun(case):
    """The method of a case and its words beyond the common ones."""
    return ("KD", FAIR) if case == "fair" else (case, [])


def contents(folder):
    return {name: (folder / "run-seed5" / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teacher):
    """A function that returns a method's finished, undisturbed run and the seconds it took."""
    found = {}

    def of(method):
        if method not in found:
            folder, started = tmp_path_factory.mktemp(method), time.perf_counter()
            name, more = begun(method)
            done = launch(name, *words(folder, teacher, *more))
            assert done.returncode == 0, done.stderr
            assert "changes nothing here" not in done.stderr  # as where a recipe has lost its second stage
            found[method] = folder, time.perf_counter() - started
        return found[method]

    return of


def killed_at_random(method, kills, whole, teacher, folder):
    """Kills runs at random moments until enough kills were survived; every run must end like the whole one."""
    chance, (undisturbed, seconds) = random.Random(method), whole(method)
    done, trial = 0, 0
    while done < kills:
        trial += 1
        here = folder / str(trial)
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            name, more = begun(method)
            process = begin(name, *words(here, teacher, *more))
            process.join(chance.uniform(0.02, 0.8 * seconds))
            if process.is_alive() and done < kills:
                os.kill(process.pid, signal.SIGKILL)
                done += 1
            process.join()
            status = process.exitcode
        assert status == 0
        assert contents(here) == contents(undisturbed), f"trial {trial}"
        assert not list(here.rglob(".*.tmp"))
        shutil.rmtree(here)


@pytest.mark.parametrize(("method", "kills"), [("KD", 3), ("EnCoDe", 3), ("fair", 1)])
def test_a_few_kills_at_random_moments_leave_the_same_bytes(method, kills, whole, teacher, tmp_path):
    killed_at_random(method, kills, whole, teacher, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("method", ["KD", "EnCoDe", "fair"])
def test_a_hundred_kills_at_random_moments_leave_the_same_bytes(method, whole, teacher, tmp_path):
    killed_at_random(method, 100, whole, teacher, tmp_path)


def content_of(path):
    """The contents of a tensor file as bytes; None if it is damaged."""
    try:
        torch.save(read_tensors(path), held := io.BytesIO())
        return held.getvalue()
    except Damaged:
        return None


def flipped(kind, flips, whole, teacher, folder):
    """Flips one bit at random places of a file: a run that reads it is refused by name, a cache is made again.

    A bit without meaning (a date, padding) goes unnoticed and changes nothing.
    """
    undisturbed, _ = whole("KD")
    chance = random.Random(kind)
    for _ in range(flips):
        here = folder / "here"
        shutil.copytree(undisturbed, here)
        used = Path(shutil.copy(teacher, here / "teacher.pt")) if kind == "teacher" else teacher
        outputs = next((here / "teachers").glob("outputs-*.pt"))
        path = {"state.pt": here / "run-seed5" / "state.pt", "teacher": used, "outputs": outputs}[kind]
        before, content = content_of(path), bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        idle = content_of(path) == before
        name = "run" if kind == "state.pt" else "again"
        done = launch("KD", *words(here, used, "--expt", name))
        if kind == "outputs" or idle:
            assert done.returncode == 0, done.stderr
            assert (f"{path.name}: " in done.stderr and "; making it again" in done.stderr) or idle, done.stderr
            for file in FILES:
                assert (here / f"{name}-seed5" / file).read_bytes() == (undisturbed / "run-seed5" / file).read_bytes()
        else:
            assert done.returncode == 2 and path.name in done.stderr and "Traceback" not in done.stderr, done.stderr
        shutil.rmtree(here)


@pytest.mark.parametrize("kind", ["state.pt", "teacher", "outputs"])
def test_a_flipped_bit_is_never_silent(kind, whole, teacher, tmp_path):
    flipped(kind, 2, whole, teacher, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["state.pt", "teacher", "outputs"])
def test_four_hundred_flipped_bits_are_never_silent(kind, whole, teacher, tmp_path):
    flipped(kind, 400, whole, teacher, tmp_path)


@pytest.mark.parametrize("flips", [20, pytest.param(400, marks=pytest.mark.campaign)])
def test_a_flipped_bit_of_a_rounds_weights_is_refused_when_they_are_read(flips, whole, tmp_path):
    undisturbed, _ = whole("KD")
    content = (undisturbed / "run-seed5" / "round_00.pt").read_bytes()
    path, chance = tmp_path / "round_00.pt", random.Random(0)
    for _ in range(flips):
        place = chance.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
        with pytest.raises(Damaged, match=r"round_00\.pt"):
            read_tensors(path)
