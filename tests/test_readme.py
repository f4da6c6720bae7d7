"""The commands of README and the other pages as a user pastes them: one block at a time, from the repository root."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from common import cli, experiments
from common.grid import jobs, runner
from common.teachers import store

from .conftest import GUIDES, MEASURED, ROOT

PAGES = [str(path.relative_to(ROOT)) for path in (*GUIDES, *MEASURED)]
BLOCKS, RESULTS = (
    [block for page in pages for block in re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)]
    for pages in (GUIDES, MEASURED)
)
# Each command line that a block comes to, with its folder, in place of running it.
STUBS = """
set -eu
say() { printf '%s\\t' "$PWD" "$@"; echo; }
python() { say python "$@"; }
pip() { :; }
make() { command make -n "$@" > /dev/null; }
source() { :; }
"""


@pytest.fixture(autouse=True)
def written(monkeypatch):
    """Makes the teachers that the text trains exist."""
    there = store.there
    monkeypatch.setattr(store, "there", lambda path: path.name in ("logits.npz", "own.npz") or there(path))


def commands(block: str) -> list[list[str]]:
    """[folder, program, words...] of each Python command in a block."""
    done = subprocess.run(["bash", "-c", STUBS + block], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [line.rstrip("\t").split("\t") for line in done.stdout.splitlines()]


@pytest.mark.parametrize("block", [*BLOCKS, *RESULTS], ids=range(len(BLOCKS) + len(RESULTS)))
def test_a_block_can_be_pasted(block):
    """Every folder and every flag exists."""
    for folder, _, *words in commands(block):
        if words[0] == "main.py":
            module = experiments.script(*folder.split("/")[-3:])
            cli.parse(module.__doc__, module.DEFAULTS, words[1:])
        elif words[:2] == ["-m", "common.grid"]:
            assert folder == str(ROOT) and jobs.jobs(*runner.parse(words[2:]))


def test_the_next_block_starts_at_the_root_again():
    """The next block starts at the root again."""
    for block in BLOCKS:
        done = subprocess.run(["bash", "-c", f"{STUBS}{block}\npwd"], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == str(ROOT), shlex.quote(block)


def test_the_comparisons_commands_are_paired():
    """What a comparison needs equal is equal: seed, batch size, epochs, labels."""
    block = next(block for block in BLOCKS if block.startswith('COMMON="--batch_size'))
    found = set()
    for folder, _, *words in commands(block):
        module = experiments.script(*folder.split("/")[-3:])
        args = cli.parse(module.__doc__, module.DEFAULTS, words[1:])
        found.add((args.seed, args.batch_size, args.train_epochs, args.lr_task, args.num_val, args.budget))
    assert len(found) == 1


@pytest.mark.parametrize("blocks", [BLOCKS, RESULTS], ids=["README", "RESULTS"])
def test_no_two_commands_are_the_same_run_with_other_flags(blocks):
    """The second would be refused: a run's folder is named by --expt and --seed."""
    runs = {}
    for block in blocks:
        for folder, _, *words in commands(block):
            if words[0] == "main.py":
                module = experiments.script(*folder.split("/")[-3:])
                args = cli.parse(module.__doc__, module.DEFAULTS, words[1:])
                assert runs.setdefault((args.expt, args.seed), (folder, vars(args))) == (folder, vars(args)), words
    assert len(runs) > 12


def test_make_help_lists_every_target():
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1].split()
    assert [line.split()[0] for line in done.stdout.splitlines()] == targets
    assert all(len(line.split()) > 1 for line in done.stdout.splitlines())


def anchors(page: Path) -> set[str]:
    """A page's heading anchors, as GitHub makes them."""
    lines = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S).splitlines()
    heads = [line.lstrip("#").strip().lower() for line in lines if re.match("#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page):
    """A file of this repository, a heading of a page, or another site."""
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        if name.startswith("https://"):
            continue
        linked = (ROOT / page).parent / name if name else ROOT / page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
