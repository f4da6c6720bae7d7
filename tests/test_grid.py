"""The grid calls the same main.py, skips what is done, outlives what fails; on Ray it ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import InputError
from common.grid import clock, jobs, runner

from .conftest import BUDGET, ROOT, TOY

SEED = TOY.index("--seed")
FLAGS = [*TOY[:SEED], *TOY[SEED + 2 :], *BUDGET, "--train_epochs", "1"]  # the grid sets the seeds


def words(tmp_path, *more):
    return ["--save_path", str(tmp_path), *more, *FLAGS]


def test_the_grid_is_a_product_with_teachers_first(tmp_path):
    args, passed = runner.parse(words(
        tmp_path, "--methods", "EnCoDe", "Random", "Single", "--networks", "student", "teacher", "--samplers", "vae",
        "entropy", "--seeds", "2", "--models", "AlexNet", "ResNet", "--datasets", "SVHN", "--percents", "20", "50",
    ))  # fmt: skip
    found = jobs.jobs(args, passed)
    names = [job.name for job in found]
    assert len(names) == len(set(names)) == 2 * 2 * (2 + 2 + 2)  # models x seeds x (Single, Random by network; EnCoDe)
    assert all("Single-teacher" in name for name in names[:4])
    encode = next(job for job in found if job.name == "ResNet-SVHN-EnCoDe-entropy-seed2024")
    parsed = encode.args()
    assert (parsed.model, parsed.sampler, parsed.seed, parsed.percents) == ("ResNet", "entropy", 2024, [20.0, 50.0])
    assert (encode.rounds, parsed.num_images, parsed.train_epochs) == (2, 200, 1)
    single = next(job for job in found if job.method == "Single")
    assert single.rounds == 1 and "--percents" not in single.words and "--budget" not in single.words


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--nonsense", "3"], "--nonsense: neither the grid nor Random has such a flag"),
        (["--feat_wt", "3"], "--feat_wt: neither the grid nor Random has such a flag"),  # KD's, which is not chosen
        (["--lr_task", "fast"], "--lr_task: 'fast' is not a number"),
        (["--models", "LeNet"], "--models: invalid choice: 'LeNet'"),
    ],
)
def test_wrong_flags_are_named_before_anything_runs(tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        runner.main(words(tmp_path, "--methods", "Random", *more))
    assert message in str(caught.value) and not list(tmp_path.iterdir())


def test_make_table1_asks_for_runs_that_there_are():
    """Every one of its commands is accepted before hours of training lead up to it; none wants another's name."""
    make = subprocess.run(["make", "-n", "table1"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [
        line.split(" -m common.grid ")[1].split() for line in make.stdout.splitlines() if " -m common.grid " in line
    ]
    names = [job.name for line in lines for job in jobs.jobs(*runner.parse(line))]
    # the teacher; CM, CM+KD and three of EnCoDe on parts; CM, CM+KD and one of EnCoDe on all; Baseline
    assert len(names) == len(set(names)) == 1 + 3 * (5 + 3) + 1


def test_a_grid_runs_reports_resumes_and_outlives_a_failure(tmp_path, capsys):
    more = ["--methods", "Single", "Random", "--seeds", "2", "--first_seed", "1"]
    other = tmp_path / "AlexNet-CIFAR10-Random-seed2"
    runner.main(words(tmp_path, "--methods", "Random", "--first_seed", "2", "--rounds", "1"))  # other flags, same name
    before = (other / "results.csv").read_bytes()
    with pytest.raises(InputError, match="1 of 4 runs failed"):
        runner.main(words(tmp_path, *more))
    captured = capsys.readouterr()
    assert "failed AlexNet-CIFAR10-Random-seed2: " in captured.err and "--rounds (was 1, now 0)" in captured.err
    assert "[2/4, about" in captured.out and "round 3/3 (160 labels, 100%)" in captured.out
    assert "| CM " in captured.out and "(n=2)" in captured.out  # the report has what is there
    assert (other / "results.csv").read_bytes() == before
    for path in other.iterdir():
        path.unlink()
    runner.main(words(tmp_path, *more))
    again = capsys.readouterr().out
    assert "4 runs, 3 done before" in again and "Single-seed1: round" not in again
    assert (tmp_path / "report" / "table1.tex").exists()


def test_the_time_left_is_known_from_the_first_round_on(tmp_path):
    args, passed = runner.parse(words(tmp_path, "--methods", "Random", "--seeds", "2"))
    first, second = jobs.jobs(args, passed)  # three rounds each
    times = clock.Clock([first, second])
    times.working(first, 60)
    assert str(times) == "time left unknown yet"
    first.folder.mkdir()
    (first.folder / "results.csv").write_text("round\n0\n")
    times.working(first, 100)
    assert str(times) == "about 8.3 min left"  # five rounds of 100 s
    times.working(first, 160)
    assert str(times) == "about 7.3 min left"  # it fell while the second round went on
    times.working(first, 500)
    assert str(times) == "about 6.7 min left"  # a round that takes longer: four more at least
    times.ended(first, 100, "refused")
    assert str(times) == "about 5.0 min left"


def test_dry_run_lists_states_and_times_and_writes_nothing(tmp_path, capsys):
    runner.main(words(tmp_path, "--methods", "Single", "Random", "--rounds", "2"))
    state = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    capsys.readouterr()
    runner.main(words(tmp_path, "--methods", "Single", "Random", "--rounds", "2", "--seeds", "2", "--dry_run"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["AlexNet-CIFAR10-Single-seed2023", "done"]
    assert lines[1].split() == ["AlexNet-CIFAR10-Random-seed2023", "done"]
    assert lines[3].startswith("AlexNet-CIFAR10-Random-seed2024") and "0 of 2 rounds, about" in lines[3]
    assert lines[4].startswith("4 runs, about")
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == state


def test_without_ray_the_flag_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="--ray: Ray is not installed; pip install ray"):
        runner.main(words(tmp_path, "--methods", "Random", "--ray", "local"))


def _training_worker(folder: Path) -> int | None:
    """A Ray worker process that has a run's lock file in `folder` open."""
    for process in Path("/proc").iterdir():
        try:
            if not (process / "cmdline").read_bytes().startswith(b"ray::"):
                continue
            files = [os.readlink(file) for file in (process / "fd").iterdir()]
        except OSError:  # not a process, or gone
            continue
        if any(file.startswith(str(folder)) and file.endswith("log.txt") for file in files):
            return int(process.name)
    return None


def test_a_grid_on_ray_survives_a_killed_worker_and_ends_with_the_same_bytes(tmp_path):
    pytest.importorskip("ray", reason="Ray is an extra: pip install ray")
    more = ["--methods", "Single", "Random", "--seeds", "4", "--rounds", "2", "--memory_gb", "1", "--threads", "1"]
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    runner.main(words(tmp_path / "alone", *more))
    command = [sys.executable, "-m", "common.grid", *words(tmp_path / "together", *more), "--ray", "local"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        killed = None
        while killed is None and process.poll() is None:
            killed = _training_worker(tmp_path / "together")
            time.sleep(0.02)
        assert killed is not None, process.communicate()
        os.kill(killed, signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    runs = sorted(path.name for path in (tmp_path / "alone").glob("*-seed*"))
    assert len(runs) == 8 and "[8/8" in out
    for run in runs:
        for file in ("results.csv", "queries.csv"):
            together = (tmp_path / "together" / run / file).read_bytes()
            assert together == (tmp_path / "alone" / run / file).read_bytes(), (run, file)
