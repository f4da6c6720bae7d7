"""Concurrent runs, each in its own process, end with the same bytes as in sequence."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common import cli, machine, startup
from common.errors import InputError
from common.grid import runner

from .conftest import BUDGET, ROOT, TOY, script
from .launcher import launch

SEED = TOY.index("--seed")
FLAGS = [*TOY[:SEED], *TOY[SEED + 2 :], *BUDGET, "--train_epochs", "1"]  # the seeds are set below
TEACHER = ["--teacher_epochs", "1", "--teacher_batch_size", "40"]
SEEDS = ("1", "2", "3")
TABLES = ("results.csv", "queries.csv")


def tables(save_path: Path) -> dict[str, bytes]:
    """The tables of all runs in a folder, by seed and table name."""
    folders = sorted(save_path.glob("*-seed?"))
    return {f"{folder.name[-5:]}/{name}": (folder / name).read_bytes() for folder in folders for name in TABLES}


def grid(save_path: Path, *more: str) -> list[str]:
    return ["--save_path", str(save_path), "--first_seed", "1", *more, *FLAGS]


@pytest.fixture(scope="module")
def in_sequence(tmp_path_factory) -> dict[str, bytes]:
    """Three seeds of KD in sequence; the first trains the teacher."""
    save_path = tmp_path_factory.mktemp("sequence")
    for seed in SEEDS:
        done = launch("KD", *FLAGS, *TEACHER, "--seed", seed, "--save_path", str(save_path))
        assert done.returncode == 0, done.stderr
    expected = tables(save_path)
    assert len(expected) == 6 and all(content.count(b"\n") > 3 for content in expected.values())
    return expected


def at_once(save_path: Path) -> dict[str, bytes]:
    """The same three started together, without a teacher."""
    words = [[*FLAGS, *TEACHER, "--seed", seed, "--save_path", str(save_path)] for seed in SEEDS]
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        several = list(pool.map(lambda seed: launch("KD", *seed), words))
    assert [done.returncode for done in several] == [0, 0, 0], [done.stderr for done in several]
    return tables(save_path)


def test_three_scripts_at_once_equal_three_in_sequence(tmp_path, in_sequence):
    assert at_once(tmp_path) == in_sequence


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(20))
def test_three_scripts_at_once_again_and_again(number, tmp_path, in_sequence):
    assert at_once(tmp_path) == in_sequence


def test_jobs_of_a_grid_equal_scripts_in_sequence(tmp_path, in_sequence, capsys):
    runner.main(grid(tmp_path, "--methods", "KD", "--seeds", "3", "--jobs", "3", *TEACHER))
    assert tables(tmp_path) == in_sequence
    out = capsys.readouterr().out
    assert "[0/4, time left unknown yet] teacher-AlexNet-digits-64px-seed2023: teacher (160 labels): epoch 1/1" in out
    assert "training one first" not in out  # no run had to
    assert "AlexNet-digits-KD-seed3: round 2/3 (100 labels, 50%): epoch 1/1" in out and "[4/4, " in out


@pytest.mark.parametrize(
    ("running", "program", "own", "spins"),
    [
        (99, "-m", {}, 0),
        (99, "-m", {"OMP_WAIT_POLICY": "ACTIVE"}, 30_000_000_000),
        (1, "-m", {}, 300_000),
        (99, "-c", {}, 300_000),  # a notebook that imports `common` keeps its own settings
    ],
)
def test_on_a_busy_machine_threads_that_wait_sleep_unless_the_user_says_otherwise(running, program, own, spins):
    """As OpenMP reports when torch loads it: set too late, the variable has no effect."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    environment |= {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT), **own}
    code = f"""
import pathlib, sys
sys.argv[0] = "{program}"
read = pathlib.Path.read_text
there = lambda path, *rest, **more: "0 0 0 {running}/99 1" if path.name == "loadavg" else read(path, *rest, **more)
pathlib.Path.read_text = there
from common import machine
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = re.findall(r"GOMP_SPINCOUNT *= *'(\d+)'", done.stderr)
    assert found and set(map(int, found)) == {spins}, done.stderr


def test_a_busy_machine_is_mentioned_where_it_matters(monkeypatch, capsys):
    for busy, threads, said in ((True, 2, True), (True, 1, False), (False, 2, False)):
        monkeypatch.setattr(startup, "BUSY", busy)
        machine.prepare(cli.parse("", script("Single").DEFAULTS, ["--device", "cpu", "--threads", str(threads)]))
        assert ("--threads 1 suits runs side by side" in capsys.readouterr().err) == said


def training(folder: Path, kind: bytes) -> int | None:
    """A process with `kind` in its command line that has open the log of a run in `folder`."""
    for process in Path("/proc").iterdir():
        try:
            if kind not in (process / "cmdline").read_bytes():
                continue
            files = [os.readlink(file) for file in (process / "fd").iterdir()]
        except OSError:  # not a process, or gone
            continue
        if any(file.startswith(str(folder)) and file.endswith("log.txt") for file in files):
            return int(process.name)
    return None


def wait_for(look, seconds: float = 120):
    """The first result of `look()` that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise TimeoutError


def gone(process: int) -> bool:
    """Has it ended? A process whose parent died first may remain as a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def end(process: int) -> None:
    """Ends a process that a failing test would leave running."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def test_a_run_that_is_killed_fails_by_name_and_the_others_go_on(tmp_path, capsys):
    """And the same command resumes it."""
    words = grid(tmp_path, "--methods", "Random", "--seeds", "2", "--rounds", "2")
    victim = tmp_path / "AlexNet-digits-Random-seed2"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: os.kill(wait_for(lambda: training(victim, b"common.grid.worker")), signal.SIGKILL))
        with pytest.raises(InputError, match="1 of 2 runs failed"):
            runner.main([*words, "--jobs", "2"])
    err = capsys.readouterr().err
    assert f"failed {victim.name}: its process was killed by SIGKILL" in err
    runner.main(words)
    assert "2 runs, 1 done before" in capsys.readouterr().out
    assert len((victim / "results.csv").read_text().splitlines()) == 3


def test_ctrl_c_ends_all_runs(tmp_path):
    words = grid(tmp_path, "--methods", "Random", "--seeds", "2", "--jobs", "2")
    workers = []

    def interrupt():
        for seed in "12":
            folder = tmp_path / f"AlexNet-digits-Random-seed{seed}"
            workers.append(wait_for(lambda folder=folder: training(folder, b"common.grid.worker")))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
            pool.submit(interrupt)
            runner.main([*words[:-1], "500"])
    finally:
        signal.signal(signal.SIGINT, before)
    left = [worker for worker in workers if not gone(worker)]
    for worker in left:
        end(worker)
    assert len(workers) == 2 and not left


def test_a_grid_that_is_killed_leaves_no_run_behind(tmp_path):
    words = grid(tmp_path, "--methods", "Random", "--jobs", "2")
    command = [sys.executable, "-m", "common.grid", *words[:-1], "500"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        worker = wait_for(lambda: training(tmp_path, b"common.grid.worker"))
        process.kill()
    try:
        assert wait_for(lambda: gone(worker), 60)
    finally:
        end(worker)


def test_a_grid_on_ray_survives_a_killed_worker_and_ends_with_the_same_bytes(tmp_path):
    """Three seeds of KD and their shared teacher."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install ray")
    more = ["--methods", "KD", "--seeds", "3", "--rounds", "2", "--memory_gb", "1", "--threads", "1", *TEACHER]
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    runner.main(grid(tmp_path / "alone", *more))
    command = [sys.executable, "-m", "common.grid", *grid(tmp_path / "together", *more), "--ray", "local"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        killed = None
        while killed is None and process.poll() is None:
            killed = training(tmp_path / "together", b"ray::")
            time.sleep(0.02)
        assert killed is not None, process.communicate()
        os.kill(killed, signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    runs = sorted(path.name for path in (tmp_path / "alone").glob("*-seed*"))
    assert len(runs) == 3 and "[4/4" in out
    for run in runs:
        for file in TABLES:
            together = (tmp_path / "together" / run / file).read_bytes()
            assert together == (tmp_path / "alone" / run / file).read_bytes(), (run, file)
