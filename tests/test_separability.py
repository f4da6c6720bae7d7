"""The tool that says whether a discriminator had anything to learn, on features where the answer is known."""

import numpy as np
import pytest

from common import cli
from common.analysis import separability
from common.errors import InputError

from .conftest import BUDGET, TOY, run


def test_alike_is_half_and_apart_is_one():
    source = np.random.default_rng(0)
    labeled, alike = source.normal(size=(2, 1000, 8))
    found = separability.separability(labeled, alike)
    assert found.keys() == {"linear", "network"}
    assert all(area == pytest.approx(0.5, abs=0.05) for area in found.values())  # 0.5 has a standard error of 0.013
    assert all(area > 0.999 for area in separability.separability(labeled, alike + 5).values())


def test_a_row_for_each_round_that_has_both_pools(tmp_path, capsys):
    run("Random", *TOY, *BUDGET, "--save_path", str(tmp_path))
    capsys.readouterr()
    separability.main([str(tmp_path / "random-seed5"), "--data_dir", str(tmp_path)])
    name, header, *rows = capsys.readouterr().out.splitlines()
    assert name == str(tmp_path / "random-seed5")
    assert header.split() == ["labels", "linear", "network", "labeled", "unlabeled", "queried"]
    assert [row.split()[0] for row in rows] == ["40", "100"]  # the third round has the whole pool
    assert all(0 <= float(value) <= 100 for row in rows for value in row.split()[1:])


@pytest.mark.parametrize(("few", "areas"), [(9, 0), (10, 2)])
def test_areas_are_blank_for_pools_too_small_to_be_split(tmp_path, few, areas):
    words = ["--initial_budget", str(few), "--budget", str(160 - 2 * few), "--subset", "160", "--train_epochs", "1"]
    run("Random", *TOY, *words, "--save_path", str(tmp_path))  # labelled: few of 160, then all but few
    rows = separability.rounds(tmp_path / "random-seed5", tmp_path)
    assert [row["labels"] for row in rows] == [few, 160 - few]
    assert all(sum(row[name] >= 0 for name in separability.CLASSIFIERS) == areas for row in rows)


def test_a_run_without_an_unlabelled_image_is_refused(tmp_path):
    run("Single", *TOY, "--train_epochs", "1", "--save_path", str(tmp_path))
    with pytest.raises(InputError, match=r"single-seed5: has no finished round, .* that left images unlabelled"):
        separability.main([str(tmp_path / "single-seed5"), "--data_dir", str(tmp_path)])


def test_what_is_no_run_is_refused_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["separability.py", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as caught:
        cli.start(separability.main)
    assert caught.value.code == 2 and "nowhere: not the folder of a run" in capsys.readouterr().err
