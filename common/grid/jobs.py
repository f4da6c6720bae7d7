"""Which runs a grid has, each an experiment's main.py with its words, and how far each has come."""

import argparse
import csv
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

from common import budget, cli, flags, runs
from common.errors import InputError
from common.experiments import available, script


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
            begun = runs.read_config(self.folder / "config.json")
        except InputError:
            return 0
        return 0 if runs.differing(begun, runs.configuration(vars(self.args()))) else self.rows()


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
        if (network == "teacher" and method in flags.DISTIL) or (model, dataset, method) not in there:
            continue
        if method != "EnCoDe" and sampler != (args.samplers or [""])[0]:
            continue  # Random and KD label at random, once
        sampler = sampler if method == "EnCoDe" else ""
        words = list(itertools.chain.from_iterable(group for group in groups if group[0] in known[method]))
        words += ["--network", network] if method in ("Single", "Random") else []
        words += ["--sampler", sampler] if sampler else []
        words += ["--percents", *args.percents] if args.percents and method in flags.LOOPS else []
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
