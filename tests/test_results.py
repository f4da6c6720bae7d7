"""The numbers in README, RESULTS and the pages of results/ match the text files there: recomputed here."""

import itertools
import json
import re
import subprocess
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common import recipes, report
from common.report import ablation, results, summary, tables
from common.report.statistics import interval

from .conftest import GUIDES, MEASURED, ROOT

FOLDERS = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir())
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (*GUIDES, *MEASURED)}
RESULTS = "\n".join(PAGES[str(path.relative_to(ROOT))] for path in MEASURED)
ACCURACY = r"\d\d\.\d\d"


@pytest.fixture(scope="module")
def rounds():
    """A row per round of every run: its folder, its name without the seed, label count and accuracies."""
    parts = []
    for path in sorted((ROOT / "results").rglob("results.csv")):
        name = path.parent.name.rsplit("-seed", 1)[0]
        parts.append(pd.read_csv(path).assign(folder=str(path.parent.parent), name=name))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def seeds(rounds):
    """Accuracies by seed: {(folder, name, what): series}, of each round's test accuracy and exported networks."""
    found = {}
    for (folder, name, count), group in rounds.groupby(["folder", "name", "labeled"]):
        for what in ("test", "val", "teacher"):  # never subtracted from each other
            row = group.set_index("seed")[f"{what}_accuracy"].dropna().sort_index()
            if len(row):
                found[f"{folder} {what}", name, count] = row
    for path in sorted((ROOT / "results").rglob("int8.csv")):
        table = pd.read_csv(path)
        table["name"] = table["run"].str.rsplit("-seed", n=1).str[0]
        for (name, percent), group in table.groupby(["name", "percent"]):
            for kind in ("fp32", "int8"):
                found[f"{path.parent}/int8.csv", name, f"{percent} {kind}"] = group.set_index("seed")[kind].sort_index()
    return found


@pytest.fixture(scope="module")
def known(seeds):
    """Mean and half interval of each row, and of each difference of two rows over their common seeds."""
    found = [interval(row) for row in seeds.values()]
    for (one, first), (other, second) in itertools.combinations(seeds.items(), 2):
        if one[0] == other[0] and len(both := first.index.intersection(second.index)) > 2:
            found.append(interval(first[both] - second[both]))
    return np.abs([each for each in found if not np.isnan(each[1])])


@pytest.mark.parametrize("page", PAGES)
def test_a_mean_and_its_interval_are_a_rows_or_a_paired_difference(page, known):
    """`72.01 ± 0.06`: over all seeds of a row, or over the common seeds of two rows of one folder, of either sign."""
    stated = re.findall(r"(\d+\.(\d+))\s+(?:points\s+)?±\s+(\d+\.\d+)", PAGES[page])
    assert len(stated) > 10 or page not in ("README.md", "RESULTS.md")
    for mean, digits, half in stated:
        off = np.abs(known - (float(mean), float(half))).max(axis=1).min()
        assert off <= 0.5 * 10 ** -len(digits) + 1e-9, f"{mean} ± {half}: no row of results/ has it"


def test_what_each_seed_has_is_a_row_in_the_order_of_its_seeds(seeds):
    rows = {tuple(f"{value:.2f}" for value in row) for row in seeds.values()}
    lists = re.findall(rf"{ACCURACY}(?:, {ACCURACY}){{2,}}", "\n".join(re.findall(r"^\|.*", RESULTS, re.M)))
    assert len(lists) > 20
    for each in lists:
        assert tuple(each.split(", ")) in rows, f"{each}: no row of results/ has it"


def test_validation_and_test_accuracy_beside_each_other_are_one_rounds(rounds):
    """`70.76 (71.13)`, in either order."""
    pairs = {frozenset([f"{row.val_accuracy:.2f}", f"{row.test_accuracy:.2f}"]) for row in rounds.itertuples()}
    stated = re.findall(rf"({ACCURACY}) \(({ACCURACY})\)", RESULTS)
    assert len(stated) > 40
    for pair in stated:
        assert frozenset(pair) in pairs, f"{pair[0]} ({pair[1]}): no round in results/ has them"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_of_results_is_listed_and_names_the_commits_that_made_it(folder):
    """Its own page, or the one this links to, has each commit in its runs' config.json."""
    assert f"results/{folder.name}/README.md" in PAGES["RESULTS.md"] or f"`{folder.name}`" in PAGES["RESULTS.md"]
    page = f"results/{folder.name}/README.md"
    linked = re.findall(r"\]\(\.\./([\w-]+)/README\.md\)", PAGES[page])
    text = PAGES[page] + "".join(PAGES[f"results/{name}/README.md"] for name in linked)
    for path in folder.rglob("config.json"):
        for made in json.loads(path.read_text(encoding="utf-8")).get("made_with", []):
            assert made["commit"][:7] in text, f"{path.parent.name}: {made['commit']}"


def words(text: str) -> list[str]:
    """The words of a command, as split by bash in the repository root."""
    line = text.replace("\n", " ")
    echo = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {line}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return echo.stdout.splitlines()


def command(page: str) -> Namespace:
    """The arguments of the command that reproduces a page's tests."""
    found = re.findall(r"`python -m common\.report\s+(results/[^`]*)`", PAGES[page])
    of_tests = next(each for each in found if "--mixed" not in each)  # this one makes the picture
    parser = ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--against", default="")
    for flag in ("--ablation", "--no-inference"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args(words(of_tests))


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", [each for each in FOLDERS if (each / "statistics.md").exists()], ids=lambda f: f.name
)
def test_a_pages_command_makes_its_tests_again(folder, tmp_path, monkeypatch):
    """Byte for byte. Regression: six files had a line that the report no longer writes, and five pages no command."""
    monkeypatch.chdir(ROOT)
    args = command(f"results/{folder.name}/README.md")
    found = results.read(args.runs, args.ablation)
    text = summary.text(summary.tables(found, reference=args.against), found)
    assert text == (folder / "statistics.md").read_text(encoding="utf-8")
    if (folder / "ablation.md").exists():
        ablation.write(found, tmp_path)
        assert (tmp_path / "ablation.md").read_bytes() == (folder / "ablation.md").read_bytes()


def test_the_pictures_command_has_the_cells_of_readme(monkeypatch):
    """The first table and the picture below it show the same runs."""
    found = re.search(r"`python -m common\.report\s+(results/[^`]*\s--mixed\s[^`]*)`", PAGES["results/fair/README.md"])
    given: list = []

    def write(*each):
        given.extend(each)
        raise InterruptedError

    monkeypatch.setattr(report, "write", write)
    monkeypatch.chdir(ROOT)
    with pytest.raises(InterruptedError):
        report.main(words(found[1]))
    cells = tables.cells(results.read(given[0], names=given[-1])).set_index(["label", "percent"])
    table = [line for line in PAGES["README.md"].splitlines() if line.startswith("|")]
    readme = {line.split("|")[1].strip(): line.split("|")[2:] for line in table}
    rows = {1: "CM", 2: "Baseline", 3: "CM+KD", 4: "CM+KD (self_training)"}
    drawn = 0
    for labels, percent in {"2,500": 5, "5,000": 10, "10,000": 20, "20,000": 40, "30,000": 60, "45,000": 100}.items():
        for column, label in rows.items():
            text = readme[labels][column].strip(" *").replace("*", "").replace(" (n=3)", "")
            if (label, percent) in cells.index:
                cell = cells.loc[(label, percent)]
                assert text == f"{cell['mean']:.2f} ± {cell['half_width']:.2f}", (label, labels)
                drawn += 1
            else:
                assert text == "", (label, labels)
    assert drawn == 6 * 3 + 2


@pytest.mark.parametrize(
    ("recipe", "method", "folder"),
    [
        ("fair", "KD", "svhn10k-fair/svhn10k-fair-random-seed2024"),
        ("fair", "Random", "svhn10k-fair/svhn10k-fair-alone-seed2025"),
        ("best", "KD", "fair-5/fair-self-training-seed2023"),
        ("best", "Random", "alone/alone-decay-seed2023"),
    ],
)
def test_a_recipe_is_what_its_results_were_made_with(recipe, method, folder):
    flags = json.loads((ROOT / "results" / folder / "config.json").read_text(encoding="utf-8"))
    stated = recipes.student(recipe, method, "AlexNet")
    assert {name: flags[name] for name in stated} == stated
