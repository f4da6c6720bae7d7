"""The grid calls the same main.py, with a teacher if needed, skips finished runs and survives failures."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from common import cli, machine, runs, teachers
from common.errors import InputError, LabelsNeeded
from common.experiments import script
from common.grid import clock, jobs, runner

from .conftest import BUDGET, ROOT, TOY

SEED = TOY.index("--seed")
FLAGS = [*TOY[:SEED], *TOY[SEED + 2 :], *BUDGET, "--train_epochs", "1"]  # the grid sets the seeds


def words(tmp_path, *more):
    return ["--save_path", str(tmp_path), *FLAGS, *more]


def test_the_grid_is_a_product_with_teachers_first(tmp_path):
    args, passed = runner.parse(words(
        tmp_path, "--methods", "EnCoDe", "Random", "Single", "--networks", "student", "teacher", "--samplers", "vae",
        "entropy", "--seeds", "2", "--models", "AlexNet", "ResNet", "--datasets", "SVHN", "--percents", "20", "50",
    ))  # fmt: skip
    found = jobs.jobs(args, passed)
    names = [job.name for job in found]
    assert len(names) == len(set(names)) == 2 * 2 * (2 + 2 + 2)  # models x seeds x (Single, Random by network; EnCoDe)
    assert all("Single-teacher" in name for name in names[:4])
    encode = next(job for job in found if job.name == "ResNet-digits-EnCoDe-entropy-seed2024")
    parsed = encode.args()
    assert (parsed.model, parsed.sampler, parsed.seed, parsed.percents) == ("ResNet", "entropy", 2024, [20.0, 50.0])
    assert (encode.rounds, parsed.num_images, parsed.train_epochs) == (2, 200, 1)
    single = next(job for job in found if job.method == "Single")
    assert single.rounds == 1 and "--percents" not in single.words and "--budget" not in single.words


def test_cells_that_no_folder_has_are_named(tmp_path, capsys, monkeypatch):
    """Regression: for a pair with one data set's folder, the other cells were left out silently."""
    folders = [
        cell for cell in jobs.available() if cell not in {("AlexNet", "CIFAR10", "KD"), ("VGG", "CIFAR10", "KD")}
    ]
    monkeypatch.setattr(jobs, "available", lambda: folders)
    more = ["--methods", "KD", "Random", "--models", "AlexNet", "VGG", "--datasets", "CIFAR10", "SVHN", "--seeds", "2"]
    found = jobs.jobs(*runner.parse(words(tmp_path, *more)))
    assert len(found) == 2 * (2 * 2 + 2)
    missing = "AlexNet/CIFAR10/KD/main.py, VGG/CIFAR10/KD/main.py"
    assert f"note: there is no {missing}; these cells are left out\n" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"there is no AlexNet/CIFAR10/KD/main\.py$"):
        jobs.jobs(*runner.parse(words(tmp_path, "--methods", "KD", "--train_epochs", "2")))


def test_a_finished_run_of_images_that_changed_is_not_taken_for_done(tmp_path, capsys):
    """Regression: only its flags were compared, so that the report had the old images' results."""
    own, draw = tmp_path / "own.npz", np.random.default_rng(0)
    parts = {"train": 24, "test": 4}
    arrays = {f"x_{part}": draw.integers(0, 256, (count, 8, 8, 3), np.uint8) for part, count in parts.items()}
    arrays |= {f"y_{part}": np.arange(count) % 2 for part, count in parts.items()}
    np.savez(own, **arrays)
    more = ["--dataset", str(own), "--num_images", "24", "--num_val", "4", "--num_classes", "2", "--batch_size", "12"]
    more = words(tmp_path, "--methods", "Random", *more, "--rounds", "1", "--initial_budget", "8")
    runner.main(more)
    runner.main(more)
    assert "1 runs, 1 done before" in capsys.readouterr().out
    for changed, said in (
        ({"x_train": 255 - arrays["x_train"]}, "training images"),
        ({"y_test": [1] * 4}, "test images"),
    ):
        np.savez(own, **arrays | changed)
        for dry in ([], ["--dry_run"]):
            with pytest.raises(
                InputError, match=rf"own\.npz: .*-seed2023 was made with other {said}.*; restore them, or"
            ):
                runner.main([*more, *dry])
    own.unlink()  # nothing to compare with: the results stay
    runner.main(more)


def test_what_is_named_twice_is_run_once(tmp_path):
    """Two jobs with one folder would wait for each other's lock."""
    twice = ["--methods", "EnCoDe", "EnCoDe", "--samplers", "vae", "margin", "vae", "--models", "AlexNet", "AlexNet"]
    found = jobs.jobs(*runner.parse(words(tmp_path, *twice, "--datasets", "SVHN", "SVHN")))
    assert [job.expt for job in found] == ["AlexNet-digits-EnCoDe-vae", "AlexNet-digits-EnCoDe-margin"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--nonsense", "3"], "--nonsense: neither the grid nor Random has such a flag"),
        (["--feat_wt", "3"], "--feat_wt: neither the grid nor Random has such a flag"),  # KD's, not chosen
        (["--lr_task", "fast"], "--lr_task: 'fast' is not a number"),
        (["--image_size", "16"], "--image_size 16: AlexNet needs 31 pixels or more"),
        (["--image_size", "16", "--dry_run"], "--image_size 16: AlexNet needs 31 pixels or more"),
        (["--models", "LeNet"], "--models: invalid choice: 'LeNet'"),
    ],
)
def test_wrong_flags_are_named_before_anything_runs(tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        runner.main(words(tmp_path, "--methods", "Random", *more))
    assert message in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], ["AlexNet-CIFAR10-Random"]),
        (["--dataset", "CIFAR10"], ["AlexNet-CIFAR10-Random"]),
        (["--dataset", "digits"], ["AlexNet-digits-Random"]),
        (["--dataset", "~/data/my birds.npz", "--tag", "x"], ["AlexNet-my birds-Random-x"]),
        (["--dataset", "digits", "--datasets", "CIFAR10", "SVHN"],
         ["AlexNet-CIFAR10-digits-Random", "AlexNet-SVHN-digits-Random"]),
    ],
)  # fmt: skip
def test_runs_are_named_by_their_data(more, expected):
    found = jobs.jobs(*runner.parse(["--methods", "Random", *more]))
    assert [job.expt for job in found] == expected


def test_a_learning_rate_for_each_method():
    words = ["--methods", "Random", "KD", "EnCoDe", "--lr_task", "0.5", "--lr_tasks", "KD=0.004", "EnCoDe=0.002"]
    found = {job.method: job.args().lr_task for job in jobs.jobs(*runner.parse(words))}
    assert found == {"Random": 0.5, "KD": 0.004, "EnCoDe": 0.002}


@pytest.mark.parametrize("wrong", [["0.1"], ["Single=0.1"], ["KD=0.1", "KD=0.2"]])
def test_a_learning_rate_of_no_method_is_refused(wrong):
    with pytest.raises(InputError, match=f"--lr_tasks {' '.join(wrong)}: write METHOD=RATE, each of Random, KD"):
        runner.parse(["--methods", "Random", "KD", "--lr_tasks", *wrong])
    with pytest.raises(InputError, match=r"^--lr_tasks KD=fast: 'fast' is not a number$"):
        runner.parse(["--methods", "Random", "KD", "--lr_tasks", "Random=0.1", "KD=fast"])


@pytest.mark.parametrize(
    ("word", "flag", "instead"),
    [
        (["--seed", "7"], "--seed", "--first_seed 7"),
        (["--expt=mine"], "--expt", "--tag NAME"),
        (["--network", "teacher"], "--network", "--networks teacher"),
    ],
)
def test_a_flag_that_the_grid_sets_itself_is_not_passed_over(word, flag, instead):
    """Regression: the grid's own value comes last and wins, so seed 7 was asked for and 2023 ran."""
    with pytest.raises(InputError, match=rf"^{flag}: is each run's own, which the grid sets; {instead}"):
        runner.parse(["--methods", "Random", *word])


def test_make_table1_asks_for_runs_that_there_are():
    """All its commands are accepted before hours of training; no two make runs of the same name."""
    make = subprocess.run(["make", "-n", "table1"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [
        line.split(" -m common.grid ")[1].split() for line in make.stdout.splitlines() if " -m common.grid " in line
    ]
    names = [job.name for line in lines for job in jobs.jobs(*runner.parse(line))]
    # the teacher; CM, CM+KD and three of EnCoDe on parts; CM, CM+KD and one of EnCoDe on all; Baseline
    assert len(names) == len(set(names)) == 1 + 3 * (5 + 3) + 1


def test_a_grid_runs_reports_resumes_and_outlives_a_failure(tmp_path, capsys):
    more = ["--methods", "Single", "Random", "--seeds", "2", "--first_seed", "1"]
    other = tmp_path / "AlexNet-digits-Random-seed2"
    runner.main(words(tmp_path, "--methods", "Random", "--first_seed", "2", "--rounds", "1"))  # other flags, same name
    before = (other / "results.csv").read_bytes()
    with pytest.raises(InputError, match="1 of 4 runs failed"):
        runner.main(words(tmp_path, *more))
    captured = capsys.readouterr()
    assert "failed AlexNet-digits-Random-seed2: " in captured.err and "--rounds (was 1, now 0)" in captured.err
    assert "[2/4, about" in captured.out and "round 3/3 (160 labels, 100%)" in captured.out
    assert "| CM " in captured.out and "(n=2)" in captured.out  # the report has the finished runs
    assert (other / "results.csv").read_bytes() == before
    for path in other.iterdir():
        path.unlink()
    runner.main(words(tmp_path, *more))
    again = capsys.readouterr().out
    assert "4 runs, 3 done before" in again and "Single-seed1: round" not in again
    assert (tmp_path / "report" / "table1.tex").exists()


class Closed(io.StringIO):
    """A stream whose reader is gone, as in `python -m common.grid | head -1`."""

    def write(self, text):
        raise BrokenPipeError


def test_a_grid_whose_lines_nobody_reads_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed())
    runner.main(words(tmp_path, "--methods", "Random", "--rounds", "1"))
    assert (tmp_path / "AlexNet-digits-Random-seed2023" / "results.csv").exists()
    assert (tmp_path / "report" / "table1.tex").exists()


def test_lines_are_passed_on_whole_and_of_a_progress_bar_what_it_leaves():
    shown = io.StringIO()
    lines = clock.Lines(lambda: "[1/2]", shown)
    for part in ("round 1", "\n\rbar 10%\rbar 20%\r       \r", "round 2\n", "\rbar\r   \r\n", "the rest"):
        lines.write(part)
    assert shown.getvalue() == "[1/2] round 1\n[1/2] round 2\n"
    lines.end()
    assert shown.getvalue().endswith("\n[1/2] the rest\n")
    clock.Lines(str, Closed()).write("nobody reads this\n")


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
    assert str(times) == "about 7.3 min left"  # it fell while the second round was running
    times.working(first, 500)
    assert str(times) == "about 6.7 min left"  # a slower round: at least four more
    times.ended(first, 100, "refused")
    assert str(times) == "about 5.0 min left"


def test_rounds_that_a_worker_did_count_whatever_its_machine_came_to(tmp_path):
    """Its GPU, precision and threads may differ from the driver's; its learning rate may not."""
    args, passed = runner.parse(words(tmp_path, "--methods", "Random"))
    (job,) = jobs.jobs(args, passed)
    job.folder.mkdir()
    (job.folder / "results.csv").write_text("round\n0\n1\n")
    there = {"device": "cuda:0", "amp": "bf16", "precision": "bf16", "threads": 8, "compile": "graph", "data": "a"}
    for change, rounds in (({}, 2), ({"lr_task": 0.5}, 0)):
        config = runs.configuration(vars(job.args()) | there | change)
        (job.folder / "config.json").write_text(json.dumps(config))
        assert job.rounds_done() == rounds


def test_a_trained_teacher_whose_file_is_gone_is_put_back(tmp_path):
    """Regression: it counted as done, and runs begun with it got another. Once both copies are gone it is done."""
    cells = ["--methods", "Single", "--networks", "teacher"]
    (job,) = jobs.jobs(*runner.parse(["--save_path", str(tmp_path), *TOY[:SEED], *TOY[SEED + 2 :], *cells]))
    job.folder.mkdir()
    (job.folder / "results.csv").write_text("round\n0\n")
    (job.folder / "config.json").write_text(json.dumps(runs.configuration(vars(job.args())) | {"data": "a"}))
    own, shared = job.folder / "round_00.pt", teachers.shared_path(job.args())
    assert job.rounds_done() == 1
    own.touch()
    assert job.rounds_done() == 0
    shared.parent.mkdir()
    shared.touch()
    assert job.rounds_done() == 1


def test_side_by_side_the_time_left_is_shared(tmp_path):
    args, passed = runner.parse(words(tmp_path, "--methods", "Random", "KD", "--seeds", "3"))
    teacher, *six = jobs.with_teachers(jobs.jobs(args, passed))
    times = clock.Clock([teacher, *six], at_once=3)
    times.working(teacher, 600)
    teacher.teacher.parent.mkdir()
    teacher.teacher.touch()
    times.ended(teacher, 600, "")
    assert str(times) == "time left unknown yet"  # a round's is not a teacher's
    for job in six[:2]:
        job.folder.mkdir()
        (job.folder / "results.csv").write_text("round\n0\n")
        times.working(job, 120)
    assert str(times) == "about 10.7 min left"  # 16 rounds of 120 s, three at a time
    times.working(six[0], 180)
    times.working(six[1], 150)
    assert str(times) == "about 10.2 min left"


def test_dry_run_lists_states_and_times_and_writes_nothing(tmp_path, capsys):
    runner.main(words(tmp_path, "--methods", "Single", "Random", "--rounds", "2"))
    state = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    capsys.readouterr()
    runner.main(words(tmp_path, "--methods", "Single", "Random", "--rounds", "2", "--seeds", "2", "--dry_run"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["AlexNet-digits-Single-seed2023", "done"]
    assert lines[1].split() == ["AlexNet-digits-Random-seed2023", "done"]
    assert lines[3].startswith("AlexNet-digits-Random-seed2024") and "0 of 2 rounds, about" in lines[3]
    assert lines[4].startswith("4 runs, about")
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == state


def teacher_jobs(tmp_path, *more):
    """(name, what it needs) of each job still to do."""
    grid = ["--save_path", str(tmp_path), *TOY[:SEED], *TOY[SEED + 2 :], *more]
    return [(job.name, job.needs) for job in jobs.with_teachers(jobs.jobs(*runner.parse(grid)))]


def test_a_missing_teacher_is_a_job_before_those_that_need_it(tmp_path):
    """One for each file: CIFAR10's and SVHN's folders are both given digits here."""
    cells = [
        "--models",
        "AlexNet",
        "ResNet",
        "--datasets",
        "CIFAR10",
        "SVHN",
        "--methods",
        "Random",
        "KD",
        "--seeds",
        "2",
    ]
    found = teacher_jobs(tmp_path, *cells, *BUDGET, "--teacher_seed", "7")
    names = ["teacher-AlexNet-digits-64px-seed7", "teacher-ResNet-digits-32px-seed7"]
    assert found[:2] == [(name, ()) for name in names] and len(found) == 2 + 2 * 2 * 2 * 2
    for name, needs in found[2:]:
        expected = [teacher for teacher in names if name.split("-")[0] in teacher and "KD" in name]
        assert list(needs) == expected, name


@pytest.mark.parametrize("more", [["--teacher", "other.pt"], ["--teacher_labels", "labeled"], []])
def test_no_teacher_is_trained_that_nobody_needs(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teachers").mkdir()
    (tmp_path / "other.pt").touch()
    if not more:
        (tmp_path / "teachers" / "AlexNet-digits-64px.pt").touch()
    found = teacher_jobs(tmp_path, "--methods", "KD", "EnCoDe", *BUDGET, *more)
    assert [needs for _, needs in found] == [(), ()]


def test_students_wait_for_the_last_of_the_grids_own_teachers(tmp_path):
    """When all run in turn, they find that one's file; an existing file is replaced."""
    cells = ["--methods", "Single", "KD", "--networks", "teacher", "student", "--seeds", "2", *BUDGET]
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "AlexNet-digits-64px.pt").touch()
    args, passed = runner.parse(words(tmp_path, *cells))
    found = {job.name: job for job in jobs.with_teachers(jobs.jobs(args, passed))}
    first, last = (f"AlexNet-digits-Single-teacher-seed{seed}" for seed in (2023, 2024))
    assert len(found) == 6 and found[last].after == (first,) and found[last].needs == found[first].after == ()
    for name, job in found.items():
        assert job.needs == ((last,) if "KD" in name else ()), name


def test_the_extra_images_have_a_teacher_of_their_own(tmp_path):
    """Regression: the grid looked for the other one, trained a second and replaced the first with it."""
    words = ["--dataset", "svhn", "--save_path", str(tmp_path)]
    for more, called in ([], "svhn"), (["--extra"], "svhn-extra"):
        module = script("AlexNet", "SVHN", "KD")
        path = teachers.needed(cli.parse(module.__doc__, module.DEFAULTS, [*words, *more]))
        assert path == tmp_path / "teachers" / f"AlexNet-{called}-64px.pt"


def test_which_of_several_teachers_is_published_is_no_race(tmp_path):
    """A later command learns from it, even if no run of this grid does."""
    cells = ["--methods", "Single", "--networks", "teacher", "--seeds", "3"]
    args, passed = runner.parse(["--save_path", str(tmp_path), *TOY[:SEED], *TOY[SEED + 2 :], *cells])
    first, second, last = jobs.with_teachers(jobs.jobs(args, passed))
    assert first.after == second.after == () and last.after == (first.name, second.name)


def test_a_teacher_that_fails_fails_its_students_by_name(tmp_path, capsys, monkeypatch):
    def refuse(args):
        raise InputError("no teacher today")

    monkeypatch.setattr(teachers, "provide", refuse)
    with pytest.raises(InputError, match="2 of 3 runs failed"):
        runner.main(words(tmp_path, "--methods", "KD", "Random", "--rounds", "1"))
    captured = capsys.readouterr()
    assert "2 runs, 0 done before; first 1 teacher to train" in captured.out
    assert captured.err.splitlines() == [
        "failed teacher-AlexNet-digits-64px-seed2023: no teacher today",
        "failed AlexNet-digits-KD-seed2023: teacher-AlexNet-digits-64px-seed2023, which makes its teacher, failed",
    ]
    assert (tmp_path / "AlexNet-digits-Random-seed2023" / "results.csv").exists()


def test_students_of_a_teacher_that_waits_for_labels_wait_too(tmp_path, capsys, monkeypatch):
    """Regression: they were said to have failed, and the grid ended with 2 in place of 3."""

    def wait(args):
        raise LabelsNeeded("4 images need a label")

    monkeypatch.setattr(teachers, "provide", wait)
    with pytest.raises(LabelsNeeded, match="2 of 2 runs wait for labels"):
        runner.main(words(tmp_path, "--methods", "KD"))
    assert capsys.readouterr().err.splitlines() == [
        "teacher-AlexNet-digits-64px-seed2023 waits for labels: 4 images need a label",
        "AlexNet-digits-KD-seed2023 waits for labels: teacher-AlexNet-digits-64px-seed2023, which makes its teacher",
    ]


def test_without_ray_the_flag_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="--ray: Ray is not installed; pip install ray, or use --jobs"):
        runner.main(words(tmp_path, "--methods", "Random", "--ray", "local"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--jobs", "2", "--ray", "local"], "--jobs 2 --ray local: one of them"),
        (["--ray", "auto", "--device", "cuda"], "--gpus 0.25"),
        (["--ray", "auto", "--device", "0", "--dry_run"], "--gpus 0.25"),
        (
            ["--samplers", "margin"],
            "--samplers margin: of EnCoDe, which is not in --methods; --sampler NAME --tag NAME",
        ),
        (["--ray", "local", "--gpus", "nan"], "--gpus: nan is out of range; it must be at least 0"),
        (["--ray", "local", "--gpus", "-1"], "--gpus: -1 is out of range; it must be at least 0"),
        (["--ray", "local", "--memory_gb", "nan"], "--memory_gb: nan is out of range; it must be more than 0"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, more, message):
    with pytest.raises(InputError) as caught:
        runner.main(words(tmp_path, "--methods", "Random", *more))
    assert message in str(caught.value) and "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_each_run_gets_its_share_of_the_threads(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    several = ["--jobs 3", "--jobs 16", "--jobs 3 --threads 4", "--ray local"]
    assert [runner.parse(flags.split())[0].threads for flags in several] == [2, 1, 4, 1]


class FakeRay:
    """Accepts tasks and reports success: a driver without a cluster."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self):
        self.tasks = []

    def init(self, **options):
        assert options["address"] == "auto"

    def cluster_resources(self):
        return {"CPU": 16.0, "GPU": 4.0, "memory": 2.0**36}

    def remote(self, **share):
        assert (share["num_gpus"], share["num_cpus"]) == (1, 1)
        return lambda function: SimpleNamespace(remote=lambda job: self.tasks.append(job) or job)

    def wait(self, pending, num_returns):
        return pending[:1], pending[1:]

    def get(self, job):
        return "", 60.0

    def shutdown(self):
        self.tasks.append("shutdown")


def test_a_driver_without_a_gpu_plans_for_workers_that_have_one(tmp_path, monkeypatch, capsys):
    def refuse(*args):
        raise InputError("--device cuda: this machine has 0 GPUs")

    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(machine, "device", refuse)
    grid = words(tmp_path, "--methods", "KD", "--seeds", "2", "--ray", "auto", "--gpus", "1", "--device", "cuda")
    runner.main([*grid, "--dry_run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines[:2]] == [["to", "train"], "0 of 3 rounds".split()]  # noqa: SIM905
    assert lines[3] == (
        "2 runs and 1 teacher to train; how long they take cannot be timed here "
        "(--device cuda: this machine has 0 GPUs)"
    )
    runner.main(grid)
    assert [getattr(task, "method", task) for task in ray.tasks] == ["KD", "KD", "KD", "shutdown"]
    assert ray.tasks[0].teacher and "[3/3, " in capsys.readouterr().out
