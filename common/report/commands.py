"""commands.sh: the commands that reproduce the report's runs, each with as few flags as possible."""

import functools
import shlex
from pathlib import Path

from common import cli, datasets, experiments, recipes
from common.errors import InputError
from common.files import write_text
from common.report.markdown import Table
from common.report.results import Results
from common.runs import ELSEWHERE, MADE_WITH, POOL, TEACHER, TEACHER_FLAGS, TRAIN_DATA
from common.schema import BEFORE

HEAD = """# Makes this report's runs again: bash commands.sh, at the repository's root. What is there already goes on.
# The commits and machines that made them are in statistics.md; --threads and --amp are those runs'.
"""
TITLE = "What makes each row's runs again, at the repository's root. --threads and --amp are those of the runs."
# keys of config.json
NO_FLAGS = {"model", "method", "data", "test_data", MADE_WITH, POOL, TEACHER, TEACHER_FLAGS, TRAIN_DATA}
SAID_ANYWAY = {"network", "seed", "expt"}


def write(found: Results, output: Path) -> list[Path]:
    """Writes the commands to commands.sh."""
    path, text = output / "commands.sh", HEAD
    for row, setting, line in lines(found):
        comment = " ".join(f"# {row}: {setting}".split())  # on one line: a row's name must not become a command
        text += f"\n{comment}\n{line}\n"
    write_text(path, text)
    return [path]


def table(found: Results) -> Table:
    """The commands for the page."""
    return Table(TITLE, ["row", "setting", "command"], [list(line) for line in lines(found)])


def lines(found: Results) -> list[tuple[str, str, str]]:
    """(row, setting, command), one for all seeds of a row that share the command."""
    kept = []
    own = found.rows[found.rows["own"]].drop_duplicates(["run", "label"])
    for (model, dataset, label), rows in own.groupby(["model", "dataset", "label"], sort=False):
        seeds: dict[tuple[str, str], list[int]] = {}
        for run, seed in zip(rows["run"], rows["seed"], strict=True):
            config = found.configs[run]
            seeds.setdefault((command(config), _teacher(config)), []).append(seed)
        for (line, teacher), which in seeds.items():
            loop = f"for seed in {' '.join(map(str, sorted(which)))}; do {line}; done"
            kept.append((label, f"{model} on {dataset}{teacher}", line if line.startswith("#") else loop))
    return kept


def _teacher(config: dict) -> str:
    """What a shared teacher needs that the run's own command would train differently; empty if it is the same."""
    flags = config.get(TEACHER_FLAGS) or {}
    words = " ".join(word for name, value in flags.items() for word in _said(name, value))
    return f"; its teacher first: Single --network teacher --recipe quick with, among others, {words}" if words else ""


def command(config: dict) -> str:
    """A run's command, in a subshell with `$seed` for the seed, from its config.json.

    It gives the flags that differ from the script's present DEFAULTS, with the recipe that leaves the fewest. If there
    is no command, a comment says why.
    """
    if "model" not in config or "method" not in config:
        return "# no record of its flags"
    folder = (config["model"], "SVHN" if config.get("dataset") == "svhn" else "CIFAR10", config["method"])
    if folder not in experiments.available():
        return f"# {' '.join('/'.join(folder).split())} has no main.py now"
    gone = sorted(config.keys() - NO_FLAGS - ELSEWHERE - _usual(*folder, ()).keys())
    if gone:  # from another version, or a second teacher's, which is trained within a run
        return f"# {'/'.join(folder)} has no flag {' '.join(', '.join(gone).split())}"
    words = [_words(folder, config, recipe) for recipe in ("own", *recipes.STUDENTS, *recipes.TEACHERS)]
    return f"(cd {'/'.join(folder)} && python main.py {' '.join(min(filter(None, words), key=len))})"


def _words(folder: tuple[str, str, str], config: dict, recipe: str) -> list[str]:
    """The flags in which a run differs from the script with this recipe; none if the recipe is another network's."""
    before = BEFORE | config
    words = [] if recipe == "own" else ["--recipe", recipe]
    words += ["--network", "teacher"] if config.get("network") == "teacher" else []
    try:
        usual = _usual(*folder, tuple(words))
    except InputError:
        return []
    said = [name for name in usual if name in _flags(*folder) & before.keys() - ELSEWHERE - SAID_ANYWAY]
    for name in said:
        words += _said(name, before[name]) if before[name] != usual[name] else []
    words += _said("labels", config["labels"]) if isinstance(config.get("labels"), str) and config["labels"] else []
    made = (config.get(MADE_WITH) or [{}])[-1]
    for name in ("threads", "amp"):
        words += _said(name, made[name]) if made.get(name) else []
    return [*words, "--seed", "$seed", *_said("expt", config.get("expt", config["method"].lower()))]


@functools.cache  # parsers for hundreds of runs would take seconds
def _usual(model: str, dataset: str, method: str, words: tuple[str, ...]) -> dict:
    """A script's values after a few words, of flags and others. Raises InputError for wrong words."""
    return vars(cli.preset(experiments.script(model, dataset, method).DEFAULTS, list(words)))


@functools.cache
def _flags(model: str, dataset: str, method: str) -> set[str]:
    return {name[2:] for name in cli.options(experiments.script(model, dataset, method).DEFAULTS)}


def _said(name: str, value) -> list[str]:
    """A flag and its value as shell words."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = value if isinstance(value, list) else [value]
    whole = [int(each) if isinstance(each, float) and each.is_integer() else each for each in values]
    words = [shlex.quote(str(each)) for each in whole]
    if name in ("dataset", "teacher", "labels") and value not in datasets.DATASETS and not Path(value).is_absolute():
        words = [f'"$OLDPWD"/{words[0]}']  # moved results have a bare file name, which is looked up at the root
    return [f"--{name}", *words]
