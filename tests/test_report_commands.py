"""commands.sh: reproduces a report's runs with the fewest flags, losing none that was given."""

import json
import shlex
import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest

from common import cli, experiments, report, runs
from common.report import commands, results

from .conftest import ROOT, script
from .reports import made, run, sitting

KEPT = sorted((ROOT / "results").glob("*/*/config.json"))
FAIR = "--recipe fair --percents 10 20"


def record(method: str, words: str, model: str = "AlexNet", **config) -> dict:
    """config.json of a run with these arguments."""
    args = cli.preset(script(method, model).DEFAULTS, words.split())
    return json.loads(json.dumps(runs.configuration(vars(args)))) | config


def words_of(command: str) -> str:
    return command.split("python main.py ")[1].split(")")[0]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("Single", ""),
        ("Single", "--recipe quick --network teacher"),
        ("Random", "--recipe fair --percents 10 20.5"),
        ("KD", FAIR),
        ("KD", f"{FAIR} --no-nesterov --lr_task 5e-05 --mixup 1"),
        ("KD", "--recipe best --percents 10"),
        ("KD", "--dataset svhn.npz --num_images 900 --flip no --logit_loss kl --logit_wt 1"),
        ("EnCoDe", "--sampler margin --query_by teacher --rounds 2 --teacher_labels labeled"),
    ],
)
def test_a_command_has_the_words_that_were_given_and_no_others(method, words):
    line = commands.command(record(method, f"{words} --seed 7 --expt mine"))
    found = words_of(line).replace('"$OLDPWD"/', "").split()
    assert line.startswith(f"(cd AlexNet/CIFAR10/{method} && python main.py ") and line.endswith(")")
    assert found[-4:] == ["--seed", "$seed", "--expt", "mine"]
    assert sorted(found[:-4]) == sorted(words.split())


def test_files_that_moved_with_the_results_are_looked_for_at_the_root():
    """Because the command changes into the script's folder."""
    config = record("KD", "--dataset svhn.npz") | {"teacher": "own.npz", "labels": "mine.csv"}
    line = commands.command(config)
    for words in ('--dataset "$OLDPWD"/svhn.npz', '--teacher "$OLDPWD"/own.npz', '--labels "$OLDPWD"/mine.csv'):
        assert f" {words} " in line
    assert " --teacher /elsewhere/own.npz " in commands.command(config | {"teacher": "/elsewhere/own.npz"})


def test_a_command_is_of_the_run_data_sets_folder():
    """SVHN's scripts have their own defaults, which need no flags."""
    config = record("KD", "--dataset svhn --extra --train_epochs 200 --expt kd --seed 1", lr_task=0.01)
    assert commands.command(config) == "(cd AlexNet/SVHN/KD && python main.py --extra --seed $seed --expt kd)"


def test_a_command_names_the_file_of_labels():
    config = record("Random", "--dataset /own --labels /own.csv --num_images 90") | {"labels": "/own.csv"}
    assert "--labels /own.csv" in words_of(commands.command(config))
    assert "labels" not in words_of(commands.command(record("Random", "--dataset /own --num_images 90")))


def test_a_command_has_the_threads_and_precision_of_the_last_sitting():
    config = record("KD", "", made_with=[sitting(threads=4), sitting(threads=1, amp="bf16")])
    assert words_of(commands.command(config)) == "--threads 1 --amp bf16 --seed $seed --expt kd"


def test_a_flag_that_a_run_lacks_is_what_was_done_before_it_was_there():
    config = record("KD", "--recipe fair --percents 10")
    del config["cutout"], config["teacher_pool"], config["mixup"], config["weight_decay"]
    assert words_of(commands.command(config)) == "--recipe fair --percents 10 --seed $seed --expt kd"
    del config["views"]
    assert "--views 0" in words_of(commands.command(config))


def test_what_cannot_be_said_is_a_comment():
    assert commands.command({}) == "# no record of its flags"
    assert commands.command(record("KD", "") | {"model": "GoogLeNet"}) == "# GoogLeNet/CIFAR10/KD has no main.py now"
    assert commands.command(record("KD", "", old=3, data="x")) == "# AlexNet/CIFAR10/KD has no flag old"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_the_present_code_has_the_flags_of_a_kept_result(path):
    """Its command parses to its configuration: no flag of a published number is gone or has a new meaning."""
    config = json.loads(path.read_text())
    line = commands.command(config)
    if line.startswith("#"):  # a second teacher, which is trained within a run
        assert config["method"] == "Single" and any(f" {name}" in line for name in ("distill_on", "start", "goes_on"))
        return
    words = shlex.split(words_of(line).replace("$seed", str(config["seed"])).replace('"$OLDPWD"/', ""))
    defaults = experiments.script(*line.removeprefix("(cd ").split(" ")[0].split("/")).DEFAULTS
    again = runs.configuration(vars(cli.preset(defaults, words)))
    assert not runs.differing(config, again | {"dataset": config["dataset"]})


def test_the_script_makes_each_seed_of_each_row(tmp_path):
    """Run by bash, with a python that prints its folder and arguments."""
    folders = []
    for method, seeds, more in (("Random", (1, 2), "--train_epochs 9"), ("KD", (2,), "--dataset x/a b.npz")):
        for seed in seeds:
            folder = tmp_path / "runs" / f"{method}{seed}"
            config = record(method, more.replace(" b.npz", "b.npz")) | {"seed": seed}
            config |= {"dataset": "x/a b.npz"} if method == "KD" else {}
            folders.append(made(run(folder, method, seed, {10: 50}), **config))
    report.write(folders, tmp_path / "report", time_inference=False)
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\nprintf "%s|" "$(pwd)" "$@"; echo\n')
    stub.chmod(0o755)
    for name in ("Random", "KD"):
        (tmp_path / "AlexNet" / "CIFAR10" / name).mkdir(parents=True)
    done = subprocess.run(
        ["bash", "report/commands.sh"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert done.returncode == 0 and not done.stderr
    base = tmp_path / "AlexNet" / "CIFAR10"
    said = [f"{base}/Random|main.py|--train_epochs|9|--seed|{seed}|--expt|random|" for seed in (1, 2)]
    said.append(f"{base}/KD|main.py|--dataset|{tmp_path}/x/a b.npz|--seed|2|--expt|kd|")
    assert done.stdout.splitlines() == said
    assert "python main.py --train_epochs 9" in (tmp_path / "report" / "report.html").read_text()


def test_no_name_becomes_a_command(tmp_path):
    """Runs may come from other people."""
    evil = record("KD", "", **{"old\ntouch a": 1}), record("KD", "") | {"method": "KD\ntouch b"}
    assert not any("\n" in commands.command(config) for config in evil)
    found = SimpleNamespace(configs={"r": record("KD", "") | {"expt": "a$(touch c)"}}, rows=pd.DataFrame(
        {"own": [True], "run": ["r"], "seed": [1], "model": ["A"], "dataset": ["d\ntouch e"], "label": ["x\ntouch f"]}
    ))  # fmt: skip
    commands.write(found, tmp_path)
    lines = (tmp_path / "commands.sh").read_text().splitlines()
    assert all(line.startswith(("#", "for seed in 1; do (cd AlexNet")) for line in filter(None, lines))


def test_another_teacher_than_the_command_would_train_is_named(tmp_path):
    """Seeds 1 and 2 have the one that main.py trains."""
    for seed in (1, 2, 3):
        more = {"teacher_flags": {"train_epochs": 100, "schedule": "step", "fold_bn": False}} if seed == 3 else {}
        made(run(tmp_path / str(seed), "KD", seed, {10: 50}), **(record("KD", "--rounds 1") | {"seed": seed}), **more)
    (_, usual, one), (_, said, two) = commands.lines(results.read([tmp_path / str(seed) for seed in (1, 2, 3)]))
    assert one.replace("1 2;", "3;") == two and usual == "AlexNet on cifar10"
    words = "--train_epochs 100 --schedule step --no-fold_bn"
    assert said == f"{usual}; its teacher first: Single --network teacher --recipe quick with, among others, {words}"


def test_runs_of_a_row_that_were_made_otherwise_have_commands_of_their_own(tmp_path):
    """For example, when each was made for other percents."""
    for seed, words in ((1, "--percents 10"), (2, "--percents 10"), (3, "--percents 20")):
        config = record("Random", words) | {"seed": seed}
        made(run(tmp_path / str(seed), "Random", seed, {20 if seed == 3 else 10: 50}), **config)
    lines = commands.lines(results.read([tmp_path / str(seed) for seed in (1, 2, 3)]))
    assert [line[2].split("; do")[0] for line in lines] == ["for seed in 1 2", "for seed in 3"]
    assert [row for row, *_ in lines] == ["CM", "CM"]
