"""The runs of a grid, each an experiment's main.py with its arguments: what each waits for, and how far it has come."""

import argparse
import csv
import itertools
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from common import budget, checks, cli, console, data, datasets, runs, teachers
from common.errors import InputError
from common.experiments import DISTILLED, LOOPS, PLAIN, available, script


@dataclass(frozen=True)
class Job:
    """One run: an experiment's main.py with its arguments, and its progress.

    Or the training of a shared teacher, with the arguments of a run that learns from it: then `teacher` is its file.
    """

    model: str
    dataset: str
    method: str
    expt: str
    seed: int
    words: tuple[str, ...]
    folder: Path
    rounds: int
    teacher: Path | None = None
    after: tuple[str, ...] = ()  # names of jobs that must end before this one starts
    needs: tuple[str, ...] = ()  # those of them that must succeed

    @property
    def name(self) -> str:
        return f"{self.expt}-seed{self.seed}"

    def args(self) -> argparse.Namespace:
        """Its flags, parsed; the caller may change them."""
        return argparse.Namespace(**vars(_parsed(self.model, self.dataset, self.method, self.words)))

    def rows(self) -> int:
        """Rounds in results.csv; 1 for a teacher that exists."""
        if self.teacher:
            return int(self.teacher.exists())
        try:
            with open(self.folder / "results.csv", newline="", encoding="utf-8") as file:
                return len(list(csv.DictReader(file)))
        except (OSError, ValueError):
            return 0

    def rounds_done(self) -> int:
        """Rounds in results.csv if the folder was begun with exactly these flags, else 0.

        Also 0 for a teacher whose file is gone from where runs look for it: its main.py puts it back.
        """
        if self.teacher:
            return self.rows()
        try:
            begun = runs.read_config(self.folder / "config.json")
        except InputError:
            return 0
        args = self.args()
        if runs.differing(begun, runs.configuration(vars(args))):
            return 0
        is_teacher = self.method == "Single" and args.network == "teacher" and (self.folder / "round_00.pt").exists()
        return 0 if is_teacher and not teachers.shared_path(args).exists() else self.rows()


def check_images(done: list[Job]) -> None:
    """Raises InputError if a finished run's own images have changed at their path since; main.py, which would, is not
    called again. Images that are not on this machine are not looked at."""
    known: dict[tuple, dict[str, str]] = {}
    for job in done:
        args = job.args()
        if job.teacher or args.dataset in datasets.DATASETS or not Path(args.dataset).exists():
            continue
        key = args.dataset, args.labels, args.image_size
        if key not in known:
            source = datasets.load(args)
            tests = data.tests_content(source, args.image_size)
            known[key] = {runs.TRAIN_DATA: data.content(source), "test_data": tests}
        if changes := runs.differing(runs.read_config(job.folder / "config.json"), known[key]):
            raise InputError(
                f"--dataset {args.dataset}: {job.folder} was made with {', '.join(changes)}; restore them, or use "
                "another --tag or --save_path"
            )


@cache  # so that notes about the flags are printed once
def _parsed(model: str, dataset: str, method: str, words: tuple[str, ...]) -> argparse.Namespace:
    module = script(model, dataset, method)
    return cli.parse(module.__doc__, module.DEFAULTS, list(words))


def jobs(args: argparse.Namespace, passed: list[str]) -> list[Job]:
    """The grid's runs, teachers first. Raises InputError for a flag that is wrong or that no chosen method has."""
    groups = _groups(passed)
    there = [cell for cell in available() if cell[0] in args.models and cell[1] in args.datasets]
    known = {cell[2]: cli.options(script(*cell).DEFAULTS) for cell in there if cell[2] in args.methods}
    wanted = itertools.product(args.models, args.datasets, args.methods)
    if missing := [f"{'/'.join(cell)}/main.py" for cell in wanted if cell not in there]:
        if not known:
            raise InputError(f"--models, --datasets, --methods: there is no {', '.join(missing)}")
        console.note(f"there is no {', '.join(missing)}; these cells are left out")
    for flag, *_ in groups:
        if not any(flag in options for options in known.values()):
            raise InputError(f"{flag}: neither the grid nor {' or '.join(known)} has such a flag; see --help")
    cells = itertools.product(args.models, args.datasets, args.methods, args.networks, args.samplers or [""])
    found = []
    for model, dataset, method, network, sampler in cells:
        if (network == "teacher" and method in DISTILLED) or (model, dataset, method) not in there:
            continue
        if method != "EnCoDe" and sampler != (args.samplers or [""])[0]:
            continue  # Random and KD label at random, once
        sampler = sampler if method == "EnCoDe" else ""
        words = [word for group in groups if group[0] in known[method] for word in group]
        words += ["--network", network] if method in PLAIN else []
        words += ["--sampler", sampler] if sampler else []
        words += ["--lr_task", args.lr_tasks[method]] if method in args.lr_tasks else []
        words += ["--percents", *args.percents] if args.percents and method in LOOPS else []
        trained = network if network == "teacher" else ""
        parts = [model, _data(args, groups, dataset), method, trained, sampler, args.tag]
        expt = "-".join(filter(None, parts))
        found += [_job(args, (model, dataset, method), expt, args.first_seed + n, words) for n in range(args.seeds)]
    if not found:
        raise InputError("--methods, --networks: no experiment fits; KD and EnCoDe train students only")
    return sorted(found, key=lambda job: (job.method != "Single" or "teacher" not in job.expt, job.seed))


def _data(args: argparse.Namespace, groups: list[list[str]], folder: str) -> str:
    """The data set in a run's name: the folder's, or the one that `--dataset` puts in its place."""
    named = [group[1] for group in groups if group[0] == "--dataset" and len(group) > 1]
    if not named or named[-1].lower() == folder.lower():
        return folder
    stem = Path(named[-1]).stem
    return stem if len(args.datasets) == 1 else f"{folder}-{stem}"  # each folder has its own hyperparameters


def with_teachers(waiting: list[Job]) -> list[Job]:
    """The jobs still to do, preceded by a job for each shared teacher that is missing and that none of them makes.

    A run that learns from a teacher needs the job that makes it. If several do (Single's teachers of several seeds),
    the last one's file counts, as when they run in turn: it waits for the others, whether or not a run needs it.
    """
    making: dict[Path, list[str]] = {}  # the jobs that publish a teacher, in order
    for job in waiting:
        if job.method == "Single" and (args := job.args()).network == "teacher":
            making.setdefault(teachers.shared_path(args), []).append(job.name)
    found, training = [], []
    for job in waiting:
        args = job.args()
        if (path := teachers.needed(args)) is None:
            found.append(job)
            continue
        if path not in making and not path.exists():
            training.append(_teacher(job, args, path))
            making[path] = [training[-1].name]
        last = tuple(making.get(path, [])[-1:])
        found.append(replace(job, after=last, needs=last))
    behind = {names[-1]: tuple(names[:-1]) for names in making.values()}
    return training + [replace(job, after=behind.get(job.name, job.after)) for job in found]


def _teacher(job: Job, args: argparse.Namespace, path: Path) -> Job:
    """The training of the shared teacher at `path`, with the flags of a run that learns from it."""
    return replace(job, expt=f"teacher-{path.stem}", seed=args.teacher_seed, folder=path.parent, rounds=1, teacher=path)


def _job(args: argparse.Namespace, experiment: tuple[str, str, str], expt: str, seed: int, words: list[str]) -> Job:
    words = [*words, "--expt", expt, "--seed", str(seed), "--save_path", args.save_path, "--threads", str(args.threads)]
    job = Job(*experiment, expt, seed, tuple(words), Path(args.save_path) / f"{expt}-seed{seed}", rounds=0)
    parsed = job.args()
    checks.image_size(parsed)
    return replace(job, rounds=len(budget.label_counts(parsed, data.pool_size(parsed))))


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
