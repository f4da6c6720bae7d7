"""A run resumes only from its own state: anything else in state.pt or config.json is refused, in one line."""

import json

import pytest
import torch

from common import budget, data, runs, state
from common.errors import InputError
from common.schema import TABLES

from .conftest import parse


@pytest.fixture
def begun(tmp_path):
    """The folder of a run in its first of three rounds, and a function that reopens it and goes to that round."""
    args = parse("Random", "--save_path", str(tmp_path))
    images = data.load(args)

    def go_on():
        run = runs.begin(args, images)
        try:
            return next(budget.rounds(args, run, images), None)
        finally:
            run.close()

    this_round = go_on()
    run = runs.begin(args, images)
    run.state |= {"round": 0, "labeled": this_round.bought}
    run.save()
    run.close()
    return run.folder, go_on


def test_what_was_written_is_read(begun):
    folder, go_on = begun
    assert go_on().number == 0
    assert state.read(folder / "state.pt")["labeled"].shape == (40,)


@pytest.mark.parametrize("name", ["round", "labeled", "training", *TABLES])
def test_what_is_no_state_is_refused(begun, name):
    folder, go_on = begun
    path = folder / "state.pt"
    state = torch.load(path, weights_only=True)
    del state[name]
    torch.save(state, path)
    words = rf"state\.pt: is not a run's state \(it has no {name}\); delete it to start the run anew"
    with pytest.raises(InputError, match=words):
        go_on()


def test_a_state_of_other_rounds_or_images_is_refused(begun):
    """40 labels in round 1, 100 in round 2, 160 when the third is over; the validation images are 40 of the 200."""
    folder, go_on = begun
    path = folder / "state.pt"
    before = torch.load(path, weights_only=True)
    images = data.load(parse("Random"))
    labeled, validation = before["labeled"], images.val[:1]
    for number, other in (
        (99, images.pool),
        (3, labeled),
        (1, labeled),
        (0, labeled[:39]),
        (0, torch.cat([labeled[:39], labeled[:1]])),
        (0, torch.cat([labeled[:39], torch.tensor([-1])])),
        (0, torch.cat([labeled[:39], torch.tensor([200])])),
        (0, torch.cat([labeled[:39], validation])),
    ):
        torch.save(before | {"round": number, "labeled": other}, path)
        words = rf"state\.pt: is of another run \(of 3 rounds {number} are done, with {len(other)} labels\); delete it"
        with pytest.raises(InputError, match=words):
            go_on()


def test_a_finished_runs_state_passes(begun):
    folder, go_on = begun
    path = folder / "state.pt"
    everything = data.load(parse("Random")).pool
    torch.save(torch.load(path, weights_only=True) | {"round": 3, "labeled": everything}, path)
    assert go_on() is None


@pytest.mark.parametrize("found", [3, [], [1], None, {"commit": ""}])
def test_a_config_without_its_records_is_refused(begun, found):
    folder, go_on = begun
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"made_with": found}))
    with pytest.raises(InputError, match=r"config\.json: not readable; put a copy back or"):
        go_on()


def test_a_state_without_its_config_is_refused(begun):
    """Regression: it resumed with whatever flags came next."""
    folder, go_on = begun
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: not readable; put a copy back"):
        go_on()


def test_a_config_without_its_data_is_refused(begun):
    """Every flag missing in the file would count as equal."""
    folder, go_on = begun
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json: not readable"):
        go_on()


def test_a_column_that_earlier_code_had_not_is_empty(begun):
    folder, go_on = begun
    path = folder / "state.pt"
    queries = {"round": [0, 0], "index": [7, 8], "label": [3, 1]}
    torch.save(torch.load(path, weights_only=True) | {"queries": queries}, path)
    found = state.read(path)["queries"]
    assert found == queries | {"score": ["", ""]}
    assert list(found) == TABLES["queries"] and go_on().number == 0
