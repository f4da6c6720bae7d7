"""--tensorboard: every point of a run's state once, whenever the run was stopped; refused without the package."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest

from common import board, cli, runs
from common.errors import InputError

from . import toys
from .conftest import BUDGET, TOY, run, script

COLUMNS = ["round", "epoch", "loss", "ce", "feat", "logit", "adv", "vae", "disc", "val_accuracy"]


class Events:
    """Stands in for TensorBoard's writer: one file of points per folder."""

    files: dict = {}  # noqa: RUF012

    def __init__(self, folder):
        self.points = self.files.setdefault(folder, [])

    def add_scalar(self, tag, value, step):
        self.points.append((tag, step, value))

    def add_images(self, tag, images, step, dataformats):
        assert dataformats == "NHWC"
        self.points.append((tag, step, images))

    def flush(self):
        pass

    close = flush


@pytest.fixture
def events(monkeypatch):
    """Points by folder; removing a folder forgets its points."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Events
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)  # whether the package is installed or not
    monkeypatch.setattr(Events, "files", {})
    forget = SimpleNamespace(rmtree=lambda folder, **_: Events.files.pop(str(folder), None))
    monkeypatch.setattr(board, "shutil", forget)
    return Events.files


def state(epochs):
    """A run's state after some epochs of its second round."""
    history = [["0", "1", "2.5", "2", "", "", "", "", "", "50.00"]]
    history += [[1, epoch, "1.5", "1", "", "", "0.25", "", "", "60.00"] for epoch in range(1, epochs + 1)]
    results = {"labeled": [2], "test_accuracy": ["55.00"]}
    queries = {"round": [0, 0, 1], "index": [7, 2, 4], "score": ["", "", "0.5"], "label": [0, 0, 0]}
    columns = {name: list(values) for name, values in zip(COLUMNS, zip(*history, strict=True), strict=True)}
    return {"history": columns, "results": results, "queries": queries}


def test_each_row_of_the_state_is_one_point(tmp_path, events):
    images = toys.images()
    images.origin = images.origin.flip(0)  # image 7 of the data set is the first here
    shown = board.Board(tmp_path, images, epochs=3)
    shown.show(state(1))
    shown.show(state(2))
    points = events[str(tmp_path)]
    scalars = [point for point in points if not point[0].startswith("queried")]
    assert [point for point in scalars if point[0] == "loss/loss"] == [
        ("loss/loss", 1, 2.5), ("loss/loss", 4, 1.5), ("loss/loss", 5, 1.5)
    ]  # fmt: skip
    assert [point[1:] for point in scalars if point[0] == "loss/adv"] == [(4, 0.25), (5, 0.25)]
    assert [point[1:] for point in scalars if point[0] == "accuracy/validation"] == [(1, 50), (4, 60), (5, 60)]
    assert [point[1:] for point in scalars if point[0] == "accuracy/test, by labels"] == [(2, 55)]
    assert {point[0] for point in scalars} == {
        "loss/loss", "loss/ce", "loss/adv", "accuracy/validation", "accuracy/test, by labels"
    }  # fmt: skip
    first, second = [point for point in points if point[0].startswith("queried")]
    assert (first[:2], second[:2]) == (("queried/round 0", 0), ("queried/round 1", 1))
    train = images.train.numpy()
    assert (first[2] == train[[0, 5]]).all() and (second[2] == train[[3]]).all()


def test_a_run_that_was_stopped_has_the_points_of_one_that_was_not(tmp_path, events, monkeypatch):
    words = [*TOY, *BUDGET, "--rounds", "2", "--tensorboard"]
    run("Random", *words, "--save_path", str(tmp_path / "whole"))
    saves, save = [], runs.Run.save

    def stopped(this):
        if len(saves) == 3:  # the second round's first epoch is trained but not saved
            raise KeyboardInterrupt
        saves.append(None)
        save(this)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("Random", *words, "--save_path", str(tmp_path / "cut"))
    run("Random", *words, "--save_path", str(tmp_path / "cut"))
    whole, cut = (events[str(tmp_path / name / "random-seed5" / "tensorboard")] for name in ("whole", "cut"))
    plain = [[point for point in points if not point[0].startswith("queried")] for points in (whole, cut)]
    assert sorted(plain[0]) == sorted(plain[1]) and len(plain[0]) == len(set(plain[0])) == 4 * 3 + 2
    sheets = [[point for point in points if point[0].startswith("queried")] for points in (whole, cut)]
    assert [point[:2] for point in sheets[0]] == [point[:2] for point in sheets[1]]
    assert len(sheets[0]) == 2 and all((a[2] == b[2]).all() for a, b in zip(*sheets, strict=True))


def test_the_flag_may_come_and_go(tmp_path, events):
    words = [*TOY, *BUDGET, "--save_path", str(tmp_path)]
    run("Random", *words)
    assert not events
    run("Random", *words, "--tensorboard")  # the run is done: all of it is shown
    tags = [tag for tag, *_ in events[str(tmp_path / "random-seed5" / "tensorboard")]]
    assert tags.count("accuracy/validation") == 6 and tags.count("accuracy/test, by labels") == 3
    run("Random", *words)


def test_without_the_package_it_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else True)
    module = script("Random")
    with pytest.raises(InputError, match=r"^--tensorboard: the package is not there; pip install tensorboard"):
        cli.parse("", module.DEFAULTS, [*TOY, "--tensorboard"])
    assert cli.parse("", module.DEFAULTS, TOY).tensorboard is False


def test_real_event_files_have_each_point_once_after_a_stop(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (1, 2):
        shown = board.Board(tmp_path / "tensorboard", toys.images(), epochs=3)
        shown.show(state(epochs))
        shown.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss/loss")] == [(1, 2.5), (4, 1.5), (5, 1.5)]
    assert [event.step for event in found.Images("queried/round 1")] == [1]
