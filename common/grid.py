"""Any part of the grid by one command: models x data sets x methods x networks x samplers x seeds, then the report.

    python -m common.grid --models AlexNet --datasets CIFAR10 --methods Random KD EnCoDe --seeds 3 \\
        --percents 10 20 30 40 50 60 100 --train_epochs 24 --step_size 20 --batch_size 128

Flags that are not the grid's own go to every main.py that has them. A run that is done is skipped, one that was cut off
goes on, one that fails becomes a row of the summary. --dry_run lists the runs and estimates their time. --ray local or
--ray auto runs them side by side on this machine or on a Ray cluster.
"""

import argparse
import contextlib
import csv
import io
import itertools
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from common import budget, cli, cluster, data, plan, report, runs
from common.errors import InputError
from common.experiments import METHODS, ROOT, available, script


@dataclass(frozen=True)
class Job:
    """One run: an experiment's main.py with its words, and what becomes of it."""

    model: str
    dataset: str
    method: str
    expt: str
    seed: int
    words: tuple[str, ...]
    folder: Path
    rounds: int

    @property
    def name(self) -> str:
        return f"{self.expt}-seed{self.seed}"

    def args(self) -> argparse.Namespace:
        module = script(self.model, self.dataset, self.method)
        return cli.parse(module.__doc__, module.DEFAULTS, list(self.words))

    def rows(self) -> int:
        """Rounds in results.csv."""
        try:
            with open(self.folder / "results.csv", newline="", encoding="utf-8") as file:
                return len(list(csv.DictReader(file)))
        except (OSError, ValueError):
            return 0

    def rounds_done(self) -> int:
        """Rounds in results.csv if the folder was begun with these very flags, else 0."""
        try:
            begun = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        same = all(begun.get(name) == value for name, value in runs.configuration(vars(self.args())).items())
        return self.rows() if same else 0


def execute(job: Job) -> str:
    """Runs the job's main.py in this process; returns what went wrong in one line, or nothing."""
    try:
        script(job.model, job.dataset, job.method).main(list(job.words))
    except (InputError, OSError) as error:
        return " ".join(str(error).split())
    except Exception as error:  # a fault in one run must not end the others
        traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def jobs(args: argparse.Namespace, passed: list[str]) -> list[Job]:
    """The grid's runs, teachers first. Raises InputError for a flag no chosen method has, or one that is wrong."""
    groups = _groups(passed)
    known = {method: cli.options(script(args.models[0], args.datasets[0], method).DEFAULTS) for method in args.methods}
    for flag, *_ in groups:
        if not any(flag in options for options in known.values()):
            raise InputError(f"{flag}: neither the grid nor {' or '.join(args.methods)} has such a flag; see --help")
    cells = itertools.product(args.models, args.datasets, args.methods, args.networks, args.samplers or [""])
    found, there = [], available()
    for model, dataset, method, network, sampler in cells:
        if (network == "teacher" and method in cli.DISTIL) or (model, dataset, method) not in there:
            continue
        if method != "EnCoDe" and sampler != (args.samplers or [""])[0]:
            continue  # Random and KD label at random, once
        sampler = sampler if method == "EnCoDe" else ""
        words = list(itertools.chain.from_iterable(group for group in groups if group[0] in known[method]))
        words += ["--network", network] if method in ("Single", "Random") else []
        words += ["--sampler", sampler] if sampler else []
        words += ["--percents", *args.percents] if args.percents and method in cli.LOOPS else []
        parts = [model, dataset, method, network if network == "teacher" else "", sampler, args.tag]
        expt = "-".join(filter(None, parts))
        found += [_job(args, (model, dataset, method), expt, args.first_seed + n, words) for n in range(args.seeds)]
    if not found:
        raise InputError("--methods, --networks: no experiment fits; KD and EnCoDe train students only")
    return sorted(found, key=lambda job: (job.method != "Single" or "teacher" not in job.expt, job.seed))


def _job(args: argparse.Namespace, experiment: tuple[str, str, str], expt: str, seed: int, words: list[str]) -> Job:
    words = [*words, "--expt", expt, "--seed", str(seed), "--save_path", args.save_path, "--threads", str(args.threads)]
    job = Job(*experiment, expt, seed, tuple(words), Path(args.save_path) / f"{expt}-seed{seed}", rounds=0)
    parsed = job.args()
    return replace(job, rounds=len(budget.label_counts(parsed, parsed.num_images - parsed.num_val)))


def _groups(words: list[str]) -> list[list[str]]:
    """`--a 1 2 --b` -> [[--a, 1, 2], [--b]]."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            groups.append(word.split("=", 1))
        elif groups:
            groups[-1].append(word)
        else:
            raise InputError(f"{word}: belongs to no flag; see --help")
    return groups


class Clock:
    """How long the rest of the grid takes, from the rounds that were run so far."""

    def __init__(self, waiting: Iterable[Job]):
        self.before = {job: job.rounds_done() for job in waiting}
        self.left = {job: job.rounds - done for job, done in self.before.items()}
        self.pace: dict[Job, float] = {}  # seconds a round
        self.began = self.into = 0.0  # when the round now at work began, and its seconds so far

    def working(self, job: Job, seconds: float) -> None:
        """`job` has been at work for so long."""
        left = job.rounds - job.rows()
        if left < self.left[job]:  # a round has ended since
            self.left[job], self.began = left, seconds
            self.pace[job] = seconds / (job.rounds - left - self.before[job])
        self.into = seconds - self.began

    def ended(self, job: Job, seconds: float, error: str) -> None:
        if not error:
            self.working(job, seconds)
        self.left.pop(job)
        self.began = self.into = 0.0

    def __str__(self) -> str:
        if not self.pace:
            return "time left unknown yet"
        usual = sum(self.pace.values()) / len(self.pace)
        alike: dict[str, list[float]] = {}  # runs that differ in the seed alone
        for job, seconds in self.pace.items():
            alike.setdefault(job.expt, []).append(seconds)
        each = {expt: sum(values) / len(values) for expt, values in alike.items()}
        left = sum(rounds * each.get(job.expt, usual) for job, rounds in self.left.items())
        return f"about {plan.duration(left - min(self.into, usual, left))} left"


class _Lines(io.TextIOBase):
    """Passes a run's lines on, each behind where the grid stands."""

    def __init__(self, head: Callable[[], str]):
        self.head, self.target, self.rest = head, sys.stdout, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.target.write(f"{self.head()} {line}\n")
        return len(text)

    def flush(self) -> None:
        self.target.flush()


def one_after_the_other(waiting: list[Job], total: int) -> dict[str, str]:
    """Runs the jobs here; returns what went wrong by name."""
    failed, clock = {}, Clock(waiting)
    for number, job in enumerate(waiting, total - len(waiting) + 1):
        started = time.perf_counter()

        def head(number: int = number, job: Job = job, started: float = started) -> str:
            clock.working(job, time.perf_counter() - started)
            return f"[{number}/{total}, {clock}] {job.name}:"

        with contextlib.redirect_stdout(_Lines(head)):
            error = execute(job)
        clock.ended(job, time.perf_counter() - started, error)
        if error:
            failed[job.name] = error
            print(f"[{number}/{total}] {job.name} failed: {error}", flush=True)
    return failed


def side_by_side(waiting: list[Job], total: int, args: argparse.Namespace) -> dict[str, str]:
    """Runs the jobs as Ray tasks; returns what went wrong by name."""
    failed, clock, done = {}, Clock(waiting), total - len(waiting)
    share = {"num_cpus": args.threads, "num_gpus": args.gpus, "memory": int(args.memory_gb * 2**30)}
    for job, error, seconds in cluster.run(execute, waiting, args.ray, share):
        done += 1
        clock.ended(job, seconds, error)
        if error:
            failed[job.name] = error
        print(f"[{done}/{total}, {clock}] {job.name} {f'failed: {error}' if error else 'done'}", flush=True)
    return failed


def show(found: list[Job]) -> None:
    """The runs with their state and estimated time; runs of one configuration are timed once."""
    images, seconds, total = None, {}, 0.0
    for job in found:
        done = job.rounds_done()
        if done < job.rounds and job.expt not in seconds:
            args = job.args()
            key = args.dataset, args.image_size, args.num_images
            if images is None or images[0] != key:
                images = key, data.load(args)
            seconds[job.expt] = plan.seconds_a_round(args, images[1])
        left = (job.rounds - done) * seconds.get(job.expt, 0.0)
        total += left
        state = "done" if done == job.rounds else f"{done} of {job.rounds} rounds, about {plan.duration(left)}"
        print(f"{job.name:45} {state}")
    print(
        f"{len(found)} runs, about {plan.duration(total)} one after the other, without missing teachers and evaluation"
    )
    if images is not None and images[1].device.type == "cuda":
        print(f"by memory, {plan.runs_that_fit(images[1].device)} such runs fit the GPU at once: --ray local --gpus")


def parse(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The grid's own flags, and the words for the scripts."""
    models, datasets, _ = (sorted(set(part)) for part in zip(*available(), strict=True))
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    flag = parser.add_argument
    flag("--models", nargs="+", choices=models, default=["AlexNet"])
    flag("--datasets", nargs="+", choices=datasets, default=["CIFAR10"])
    flag("--methods", nargs="+", choices=METHODS, default=["Random", "KD", "EnCoDe"])
    flag("--networks", nargs="+", choices=["student", "teacher"], default=["student"], help="of Single and Random")
    flag("--samplers", nargs="+", choices=cli.OFFERED["EnCoDe"], help="of EnCoDe; its own when left out")
    flag("--seeds", type=cli.COUNT, default=1, help="how many")
    flag("--first_seed", type=cli.COUNT0, default=2023)
    flag("--percents", nargs="+", help="label counts in percent of num_images; 100 is the whole pool")
    flag("--tag", default="", help="added to the runs' names, to tell them from others with other flags")
    flag("--save_path", default=str(ROOT / "runs"))
    flag("--output", default="", help="the report's folder; empty: <save_path>/report")
    flag("--threads", type=cli.COUNT0, default=0, help="of each run; 0: all cores, or 1 with --ray")
    flag("--ray", choices=["local", "auto"], help="a Ray cluster on this machine, or the one that is there")
    flag("--gpus", type=float, default=0.0, help="with --ray: a run's share of a GPU, 0.25 puts four on one")
    flag("--memory_gb", type=float, default=2.5, help="with --ray: memory a run is given")
    flag("--dry_run", action="store_true", help="list the runs with their estimated time, and stop")
    args, passed = parser.parse_known_args(argv)
    args.save_path = str(Path(args.save_path).expanduser().resolve())
    if args.ray and not args.threads:
        args.threads = 1
    return args, passed


def main(argv: list[str] | None = None) -> None:
    args, passed = parse(argv)
    found = jobs(args, passed)
    if args.dry_run:
        return show(found)
    waiting = [job for job in found if job.rounds_done() < job.rounds]
    print(f"{len(found)} runs, {len(found) - len(waiting)} done before", flush=True)
    run_all = one_after_the_other if args.ray is None else lambda *jobs: side_by_side(*jobs, args)
    failed = run_all(waiting, len(found)) if waiting else {}
    finished = [str(job.folder) for job in found if job.rounds_done()]
    if finished:
        report.main([*finished, "--output", args.output or str(Path(args.save_path) / "report")])
    for name, error in failed.items():
        print(f"failed {name}: {error}", file=sys.stderr)
    if failed:
        raise InputError(f"{len(failed)} of {len(found)} runs failed; the same command runs these again")


if __name__ == "__main__":
    cli.start(main)
