"""The pools: disjoint, complete, growing as planned, the same for equal seeds."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from common import budget, data, runs, samplers
from common.errors import InputError
from common.seeds import generator

from .conftest import parse


def pools_of(tmp_path, method, *words):
    """Goes through all rounds of a run without training; returns each round's pools."""
    args = parse(method, "--save_path", str(tmp_path), *words)
    images = data.load(args)
    seen = []
    for this_round in budget.rounds(args, runs.begin(args, images), images):
        seen.append((this_round.labeled.tolist(), this_round.unlabeled.tolist(), this_round.percent))
        this_round.run.add("timing")
        this_round.query(samplers.build(args, this_round, torch.nn.Identity()))
    return images, seen


class Spy(samplers.Sampler):
    """Prefers the images of the highest index and records what it was asked about."""

    def score(self, index):
        self.asked = index.tolist()
        return index.float()


def test_a_percent_is_the_nearest_count():
    """0.57 of 50,000 is 284.99999999999994 in floating point."""
    args = parse(
        "Random", "--num_images", "50000", "--num_val", "5000", "--percents", "0.57", "10", "100", "--subset", "45000"
    )
    assert budget.label_counts(args, 45000) == [285, 5000, 45000]


def test_a_query_chooses_among_a_random_subset_of_the_unlabelled_pool(tmp_path):
    """80 of 120 candidates for 60 labels, drawn by seed and round; if all remaining are taken, all are candidates."""
    args = parse("Random", "--save_path", str(tmp_path))
    images = data.load(args)
    asked = []
    for this_round in budget.rounds(args, runs.begin(args, images), images):
        spy = Spy(args, this_round, torch.nn.Identity(), None)
        this_round.run.add("timing")
        this_round.query(spy)
        if this_round.number < 2:
            asked.append(spy.asked)
            last_unlabeled = this_round.unlabeled
            assert set(spy.asked) <= set(this_round.unlabeled.tolist()) and len(set(spy.asked)) == len(spy.asked)
            chosen = this_round.run.state["labeled"][len(this_round.labeled) :].tolist()
            assert chosen == sorted(spy.asked, reverse=True)[:60]
    assert [len(candidates) for candidates in asked] == [80, 60]
    unlabeled = images.pool[40:]
    order = torch.randperm(120, generator=generator(5, "subset", 0))
    assert asked[0] == unlabeled[order[:80]].tolist() != unlabeled[:80].tolist()
    assert asked[1] == last_unlabeled.tolist()


def test_each_round_draws_its_candidates_anew(tmp_path):
    """With one order for all rounds, an image that was no candidate once would rarely become one."""
    few = ["--initial_budget", "20", "--budget", "20", "--subset", "30", "--rounds", "3"]
    args = parse("Random", *few, "--save_path", str(tmp_path))
    images = data.load(args)
    for this_round in budget.rounds(args, runs.begin(args, images), images):
        spy = Spy(args, this_round, torch.nn.Identity(), None)
        this_round.run.add("timing")
        this_round.query(spy)
        if this_round.number < 2:
            order = torch.randperm(len(this_round.unlabeled), generator=generator(5, "subset", this_round.number))
            assert spy.asked == this_round.unlabeled[order[:30]].tolist()


def test_where_all_the_rest_is_taken_the_subset_does_not_matter(tmp_path):
    args = parse("Random", "--initial_budget", "100", "--subset", "10", "--save_path", str(tmp_path))
    images = data.load(args)
    seen = []
    for this_round in budget.rounds(args, runs.begin(args, images), images):
        seen.append(this_round.labeled.tolist())
        this_round.run.add("timing")
        this_round.query(samplers.build(args, this_round, torch.nn.Identity()))
    assert [len(labeled) for labeled in seen] == [100, 160] and sorted(seen[1]) == sorted(images.pool.tolist())


def test_labels_are_not_bought_for_a_wrong_choice(first_round):
    _, run, _, this_round = first_round("Random")
    spy = Spy(this_round.args, this_round, torch.nn.Identity(), None)
    spy.choose = lambda count, candidates: (torch.zeros(count, dtype=torch.long), torch.zeros(count))
    with pytest.raises(InputError, match=r"^--sampler random: chose 60 images \(1 different\) of 60 asked for"):
        this_round.query(spy)
    assert len(run.state["labeled"]) == 40


def test_a_query_is_timed(tmp_path, monkeypatch):
    clock = iter([100.0, 102.5])
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    args = parse("Random", "--save_path", str(tmp_path))
    images = data.load(args)
    this_round = next(budget.rounds(args, runs.begin(args, images), images))
    this_round.run.add("timing")
    this_round.query(samplers.build(args, this_round, torch.nn.Identity()))
    assert this_round.run.last("timing")["query_seconds"] == "2.50"


def test_labelled_unlabelled_and_validation_partition_the_images_in_every_round(tmp_path):
    images, seen = pools_of(tmp_path, "Random")
    assert [len(labeled) for labeled, _, _ in seen] == [40, 100, 160]
    assert [percent for _, _, percent in seen] == [20, 50, 100]  # the full pool counts as 100
    before: list[int] = []
    for labeled, unlabeled, _ in seen:
        assert sorted(labeled + unlabeled + images.val.tolist()) == list(range(200))
        assert labeled[: len(before)] == before
        before = labeled


def test_equal_seeds_start_from_equal_labels_and_others_do_not(tmp_path):
    first = pools_of(tmp_path / "a", "Random")[1][0][0]
    assert pools_of(tmp_path / "b", "Random", "--expt", "other")[1][0][0] == first
    assert pools_of(tmp_path / "c", "Random", "--seed", "6")[1][0][0] != first
    kd = parse("KD")
    assert data.load(kd).pool[:40].tolist() == first


def test_label_counts():
    assert budget.label_counts(parse("Random"), 160) == [40, 100, 160]
    assert budget.label_counts(parse("Random", "--rounds", "2"), 160) == [40, 100]
    assert budget.label_counts(parse("Random", "--percents", "0.5", "30", "60", "100"), 160) == [1, 60, 120, 160]
    assert budget.label_counts(parse("Random", "--budget", "60", "--initial_budget", "160"), 160) == [160]
    assert budget.label_counts(parse("Random", "--subset", "60"), 160) == [40, 100, 160]
    assert budget.label_counts(parse("Single"), 160) == [160]


PERCENTS = "labels; must grow, from one label to at most 80 (the pool has 160 images) or 100, which means all of it"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--initial_budget", "161"],
            "--initial_budget 161: the pool has 160 images (--num_images 200 less --num_val 40); these fit: "
            "--initial_budget 20 --budget 20 --subset 40",
        ),
        (["--subset", "59"], "--subset 59: 60 labels are queried from it; use at least that"),
        (["--percents", "20", "10"], f"--percents 20.0 10.0: 40, 20 {PERCENTS}"),
        (["--percents", "20", "20"], f"--percents 20.0 20.0: 40, 40 {PERCENTS}"),
        (["--percents", "0.2"], f"--percents 0.2: 0 {PERCENTS}"),
        (["--percents", "85"], f"--percents 85.0: 170 {PERCENTS}"),
    ],
)
def test_budgets_that_do_not_fit(words, message):
    with pytest.raises(InputError) as refused:
        budget.label_counts(parse("Random", *words), 160)
    assert str(refused.value) == message


def test_queries_name_the_images_of_the_data_set(tmp_path):
    """Initial labels are round 0, without a score; no image is queried twice."""
    images, seen = pools_of(tmp_path, "Random")
    rows = [line.split(",") for line in (tmp_path / "random-seed5" / "queries.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["0"] * 40 + ["1"] * 60 + ["2"] * 60
    assert [int(row[1]) for row in rows] == images.origin[torch.tensor(seen[-1][0])].tolist()
    assert len({row[1] for row in rows}) == 160
    labels = dict(zip(images.origin.tolist(), images.labels.tolist(), strict=True))
    assert all(int(row[3]) == labels[int(row[1])] for row in rows)
    assert all((row[2] == "") == (row[0] == "0") for row in rows)


def test_bought_validation_labels_are_bought_once_and_stay_bought(tmp_path):
    """Each round has its count of labels, 10 of which validate and train nothing."""
    images, seen = pools_of(tmp_path, "Random", "--val_labels", "bought", "--num_val", "10")
    assert [len(labeled) for labeled, _, _ in seen] == [30, 90, 150, 190]
    assert [percent for _, _, percent in seen] == [20, 50, 80, 100]
    assert all(sorted(labeled + unlabeled + images.val.tolist()) == list(range(200)) for labeled, unlabeled, _ in seen)


def test_a_run_says_where_it_is_and_goes_on(tmp_path):
    """Stopped after the second of three rounds, then finished, then asked again."""
    args = parse("Random", "--save_path", str(tmp_path))
    images = data.load(args)
    folder = tmp_path / "random-seed5"

    def said(count: int) -> list[str]:
        (folder / "log.txt").unlink(missing_ok=True)
        run = runs.begin(args, images)
        for this_round in itertools.islice(budget.rounds(args, run, images), count):
            run.add("timing")
            this_round.query(samplers.build(args, this_round, torch.nn.Identity()))
        run.close()
        return (folder / "log.txt").read_text(encoding="utf-8").splitlines()

    first, second, third = (
        f"round {number}/3 ({labels} labels, {percent}%): training"
        for number, labels, percent in ((1, 40, 20), (2, 100, 50), (3, 160, 100))
    )
    done = f"done: {folder / 'results.csv'}"
    assert said(3)[:2] == [first, second]  # the third has begun but not ended
    assert said(4) == [f"{folder}: going on at round 3 of 3", third, done]
    assert said(4) == [done]
