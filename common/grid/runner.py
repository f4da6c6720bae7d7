"""Any part of the grid with one command: models x data sets x methods x networks x samplers x seeds, then the report.

    python -m common.grid --models AlexNet --datasets CIFAR10 --methods Random KD EnCoDe --seeds 3 \\
        --percents 10 20 30 40 50 60 100 --train_epochs 24 --step_size 20 --batch_size 128

Flags that are not the grid's own go to every main.py that has them. Finished runs are skipped, interrupted ones
resume, and failed ones are listed at the end. A missing teacher that runs share is trained first. --dry_run lists the
runs and estimates their time. --jobs 4 runs four in parallel on this machine; --ray local or --ray auto does so with
Ray, on this machine or on a cluster.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from common import budget, console, data, machine, plan, report
from common.errors import InputError, LabelsNeeded
from common.experiments import LOOPS, METHODS, ROOT, available
from common.flags import OFFERED
from common.grid import work
from common.grid.cluster import Cluster
from common.grid.jobs import Job, check_images, jobs, with_teachers
from common.grid.processes import Processes
from common.grid.worker import WAITS
from common.parsing import COUNT, COUNT0, RATE, SEED, WEIGHT, Parser

INSTEAD = {  # what replaces the scripts' flags that the grid sets for each run
    "--seed": "--first_seed 7 --seeds 1 runs seed 7 alone",
    "--expt": "--tag NAME is added to the runs' names",
    "--network": "--networks teacher, or student, chooses it",
}


def show(found: list[Job]) -> None:
    """Prints the runs with their state and estimated time, missing teachers first; each configuration is timed once."""
    listed = with_teachers([job for job in found if job.rounds_done() < job.rounds])
    missing = [job for job in listed if job.teacher]
    several = f"{len(found)} runs{_teachers(len(missing), ' and ')}"
    if any(getattr(job.args(), "teacher_labels", "all") == "labeled" for job in found):
        several += ", less where they share their labels and so their teachers"
    timer, total = Timer(), 0.0
    for job in missing + found:
        done = job.rounds_done()
        seconds = timer.seconds(job, job.rounds - done)
        total += seconds or 0.0
        state = "to train" if job.teacher else f"{done} of {job.rounds} rounds"
        state += "" if seconds is None else f", about {plan.duration(seconds)}"
        print(f"{job.name:45} {'done' if done == job.rounds else state}")
    if timer.refused:
        print(f"{several}; how long they take cannot be timed here ({timer.refused})")
    else:
        print(f"{several}, about {plan.duration(total)} one after the other, without evaluation")
    if timer.images is not None and timer.images.device.type == "cuda":
        fit = plan.runs_that_fit(timer.images.device)
        print(f"by memory, {fit} such runs fit the GPU at once: --jobs, or --ray local --gpus")


class Timer:
    """Estimates jobs' times from a few updates of each configuration, if this machine has the device they need."""

    def __init__(self):
        self.images: data.Images | None = None
        self.refused = ""  # why this machine cannot run the jobs
        self._key: tuple = ()
        self._seconds: dict[str, float] = {}

    def seconds(self, job: Job, rounds: int) -> float | None:
        """Seconds for `rounds` rounds of the job, or for a teacher's training; None if they cannot be timed."""
        if rounds == 0:
            return 0.0
        if job.expt not in self._seconds and not self.refused:
            args = job.args()
            try:
                machine.prepare(args)
            except InputError as error:  # a cluster's driver may lack its workers' GPU
                self.refused = str(error)
                return None
            key = args.dataset, args.image_size, args.num_images
            if key != self._key:
                self._key, self.images = key, data.load(args)
            timed = plan.teacher_seconds if job.teacher else plan.seconds_a_round
            self._seconds[job.expt] = timed(args, self.images)
            if not job.teacher and getattr(args, "teacher_labels", "all") == "labeled":
                counts = budget.label_counts(args, data.pool_size(args))
                self._seconds[job.expt] += sum(plan.fair_seconds(args, self.images, counts)) / len(counts)
        return rounds * self._seconds[job.expt] if job.expt in self._seconds else None


def parse(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The grid's own flags, and the arguments for the scripts."""
    models, datasets, _ = (sorted(set(part)) for part in zip(*available(), strict=True))
    parser = Parser(description=__doc__, allow_abbrev=False)
    flag = parser.add_argument
    flag("--models", nargs="+", choices=models, default=["AlexNet"], help="pairs of networks")
    flag(
        "--datasets",
        nargs="+",
        choices=datasets,
        default=["CIFAR10"],
        help="the experiments' folders; --dataset replaces their data set",
    )
    flag("--methods", nargs="+", choices=METHODS, default=list(LOOPS), help="experiments")
    flag("--networks", nargs="+", choices=["student", "teacher"], default=["student"], help="for Single and Random")
    flag("--samplers", nargs="+", choices=OFFERED["EnCoDe"], help="for EnCoDe; default: its own")
    flag("--lr_tasks", nargs="+", default=[], metavar="METHOD=RATE", help="learning rate for each method, e.g. "
         "Random=0.01 KD=0.004")  # fmt: skip
    flag("--seeds", type=COUNT, default=1, help="number of seeds")
    flag("--first_seed", type=SEED, default=2023, help="the first seed; the others count up from it")
    flag("--percents", nargs="+", help="label counts in percent of num_images; 100 is the whole pool")
    flag("--tag", default="", help="added to the runs' names, to tell them from runs with other flags")
    flag("--save_path", default=str(ROOT / "runs"), help="where run folders go")
    flag("--output", default="", help="folder for the report; empty: <save_path>/report")
    flag("--threads", type=COUNT0, default=0, help="CPU threads of each run; 0: all cores, a share of them with "
         "--jobs, 1 with --ray")  # fmt: skip
    flag("--jobs", type=COUNT, help="number of runs side by side on this machine, each in its own process")
    flag("--ray", choices=["local", "auto"], help="local: a Ray cluster on this machine. auto: the existing one")
    flag("--gpus", type=WEIGHT, default=0.0, help="with --ray: each run's share of a GPU; 0.25 puts four on one")
    flag("--memory_gb", type=RATE, default=2.5, help="with --ray: memory for each run, in GB")
    flag("--dry_run", action="store_true", help="list the runs with their estimated time, and stop")
    args, passed = parser.parse_known_args(argv)
    for word in passed:
        if (flag := word.split("=")[0]) in INSTEAD:
            raise InputError(f"{flag}: is each run's own, which the grid sets; {INSTEAD[flag]}")
    for name in ("models", "datasets", "methods", "networks", "samplers"):  # a run named twice is one run
        setattr(args, name, list(dict.fromkeys(getattr(args, name) or [])))
    args.save_path = os.path.realpath(os.path.expanduser(args.save_path))
    args.lr_tasks = _by_method(args.lr_tasks, args.methods)
    if args.samplers and "EnCoDe" not in args.methods:
        raise InputError(f"--samplers {' '.join(args.samplers)}: of EnCoDe, which is not in --methods; --sampler NAME "
                         "--tag NAME gives the others one")  # fmt: skip
    if args.ray and args.jobs:
        raise InputError(f"--jobs {args.jobs} --ray {args.ray}: one of them; --jobs needs no Ray, on this machine")
    if not args.threads and (args.ray or args.jobs):
        args.threads = 1 if args.ray else max(1, machine.cores() // args.jobs)
    return args, passed


def _by_method(words: list[str], methods: list[str]) -> dict[str, str]:
    """`KD=0.004` -> {"KD": "0.004"}. Raises InputError for another method or a rate that is wrong."""
    found = dict(word.split("=", 1) for word in words if "=" in word)
    if len(found) < len(words) or not found.keys() <= set(methods):
        raise InputError(f"--lr_tasks {' '.join(words)}: write METHOD=RATE, each of {', '.join(methods)} at most once")
    for word in words:
        try:
            RATE(word.split("=", 1)[1])
        except argparse.ArgumentTypeError as error:
            raise InputError(f"--lr_tasks {word}: {error}") from None
    return found


def main(argv: list[str] | None = None) -> None:
    args, passed = parse(argv)
    found = jobs(args, passed)
    _check(args, found)
    waiting = [job for job in found if job.rounds_done() < job.rounds]
    check_images([job for job in found if job not in waiting])
    if args.dry_run:
        return show(found)
    left = with_teachers(waiting)
    missing = len(left) - len(waiting)
    first = _teachers(missing, "; first ")
    console.say(f"{len(found)} runs, {len(found) - len(waiting)} done before{first}")
    failed = {}
    if left:
        with contextlib.closing(_workers(args)) as workers:
            failed = work.off(left, len(found) + missing, workers)
    finished = [str(job.folder) for job in found if job.rounds_done()]
    if finished:
        report.main([*finished, "--mixed", "--output", args.output or str(Path(args.save_path) / "report")])
    waits = [name for name, error in failed.items() if error.startswith(WAITS)]
    for name, error in failed.items():
        print(f"{name} {error}" if name in waits else f"failed {name}: {error}", file=sys.stderr)
    total = len(found) + missing
    if len(failed) > len(waits):
        lost = len(failed) - len(waits)
        raise InputError(f"{lost} of {total} runs failed; the same command runs these again")
    if waits:
        raise LabelsNeeded(
            f"{len(waits)} of {total} runs wait for labels; fill in their lists and run the same command again"
        )


def _check(args: argparse.Namespace, found: list[Job]) -> None:
    """Raises InputError when runs on Ray ask for a GPU and have no share of one."""
    devices = {job.args().device for job in found}  # only parsed: the driver may lack these devices
    asked = sorted(name for name in devices if name.startswith("cuda") or name.isdigit())
    if args.ray and not args.gpus and asked:
        raise InputError(f"--device {asked[0]} --ray {args.ray} --gpus 0: Ray shows a run no GPU; give each a share, "
                         "--gpus 0.25 puts four on one")  # fmt: skip


def _teachers(count: int, before: str) -> str:
    return f"{before}{count} teacher{'s' * (count > 1)} to train" if count else ""


def _workers(args: argparse.Namespace) -> work.Workers:
    if args.ray:
        share = {"num_cpus": args.threads, "num_gpus": args.gpus, "memory": int(args.memory_gb * 2**30)}
        return Cluster(args.ray, share)
    return Processes(args.jobs) if (args.jobs or 1) > 1 else work.Here()
