"""Query strategies against their definitions in float64 loops, on pools that are small, equal, constant or too few."""

import csv
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from common import augment, fast, flags, networks, runs, samplers
from common.augment import View
from common.distillation import Targets
from common.errors import InputError
from common.grid import jobs, runner
from common.networks import SequentialNet, SplitNet
from common.samplers import SAMPLERS, Sampler, bald, spread, typical_confident, typiclust

from .conftest import BUDGET, TOY, parse, run

ASKING = [name for name, kind in SAMPLERS.items() if kind.asks and not kind.needs_dropout]
KD = [name for name, kind in SAMPLERS.items() if not kind.learns]


class Given(SplitNet):
    """A student whose last layer sees given features, one row per image; the image's first pixel gives the row."""

    def __init__(self, h: torch.Tensor, weight: torch.Tensor):
        super().__init__()
        self.h, self.last = h, nn.Linear(*weight.T.shape, bias=False)
        self.last.weight.data = weight

    def features(self, x):
        return self.h[x[:, 0, 0, 0].mul(127.5).add(127.5).round().long()]

    def classifier(self, h):
        return self.last(h)


class Dropping(SequentialNet):
    """A teacher with a pool that copies, two dropout layers, two linear ones."""

    def __init__(self, channels: int, classes: int):
        torch.manual_seed(6)
        layers = [
            nn.Dropout(0.25),
            nn.Linear(4 * channels, 6),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(6, classes),
        ]
        super().__init__(nn.Sequential(), 2, layers)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(
    name: str, h: torch.Tensor, *words: str, teacher=None, z=None, labels=None, labeled: int = 3, number: int = 0
):
    """A strategy whose student has features h (n, d) and logits random in them, and the candidates.

    `teacher` (n, classes) and `z` (n, C) are the teacher's logits and features.
    """
    count, classes = len(h), 4
    teacher = random(count, classes, seed=1) if teacher is None else teacher
    z = random(count, 5, seed=2) if z is None else z
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3)
    images = SimpleNamespace(train=pixels, device=pixels.device, size=8, labels=labels)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    this_round = SimpleNamespace(number=number, images=images, labeled=order[:labeled], unlabeled=order[labeled:])
    mirrored = torch.full_like(teacher, math.nan)  # must not be asked
    net = Dropping(z.shape[1], classes).eval() if SAMPLERS[name].needs_dropout else None
    targets = Targets(nn.Identity(), z[None, :, :, None, None], torch.stack([teacher, mirrored]), net=net)
    if SAMPLERS[name].needs_dropout:
        words += ("--query_by", "teacher")
    args = parse("KD", "--sampler", name, "--num_classes", str(classes), *words)
    student = Given(h, random(classes, h.shape[1], seed=4))
    return samplers.build(args, this_round, student, targets), order[labeled:]


def probabilities(logits: torch.Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def shannon(p: np.ndarray) -> float:
    return -sum(value * math.log(value) for value in p if value > 0)


SCORES = {
    "least_confidence": lambda p: 1 - max(p),
    "margin": lambda p: sorted(p)[-2] - sorted(p)[-1],
    "entropy": shannon,
    "confidence": lambda p: -shannon(p),
}


@pytest.mark.parametrize("asked", ["student", "teacher"])
@pytest.mark.parametrize("name", SCORES)
def test_scores_of_what_the_asked_network_predicts(name, asked):
    sampler, candidates = build(name, 2 * random(40, 6), "--query_by", asked)
    with torch.no_grad():
        logits = sampler.student(sampler.look(torch.arange(40)))
    p = probabilities(sampler.targets.logits[0] if asked == "teacher" else logits)
    expected = sorted(candidates.tolist(), key=lambda image: -SCORES[name](p[image]))[:10]
    chosen, scores = sampler.query(10, candidates)
    assert chosen.tolist() == expected
    assert scores.tolist() == pytest.approx([SCORES[name](p[image]) for image in expected], abs=1e-5)


def test_the_teachers_confidence_has_a_name_of_its_own():
    """Runs older than `--query_by` resume under it."""
    sampler, candidates = build("teacher_confidence", random(40, 6))
    other, _ = build("confidence", random(40, 6), "--query_by", "teacher")
    assert torch.equal(sampler.query(10, candidates)[0], other.query(10, candidates)[0])
    before, now = {"sampler": "teacher_confidence"}, {"sampler": "teacher_confidence", "query_by": "student"}
    assert runs.differing(before, now) == []
    assert runs.differing(before, now | {"query_by": "teacher"}) == ["--query_by (was student, now teacher)"]


def test_gap():
    sampler, candidates = build("gap", 2 * random(40, 6))
    with torch.no_grad():
        student = probabilities(sampler.student(sampler.look(torch.arange(40))))
    teacher = probabilities(sampler.targets.logits[0])
    gaps = [sum(t * math.log(t / s) for s, t in zip(*rows, strict=True)) for rows in zip(student, teacher, strict=True)]
    chosen, scores = sampler.query(10, candidates)
    assert chosen.tolist() == sorted(candidates.tolist(), key=lambda image: -gaps[image])[:10]
    assert scores.tolist() == pytest.approx([gaps[image] for image in chosen.tolist()], abs=1e-5)


def test_balanced_evens_the_labelled_pool_out():
    """Class 0 is labelled three times, class 3 has only two images."""
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 8 + [3] * 2)
    sampler, _ = build("balanced", random(40, 6), labels=labels)
    sampler.labeled, candidates = torch.arange(3), torch.arange(3, 40)
    chosen, scores = sampler.query(11, candidates)
    assert torch.cat([sampler.labeled, chosen]).unique().numel() == 14
    assert labels[chosen].bincount().tolist() == [1, 4, 4, 2]  # 4, 4, 4, 2 with what is labelled
    assert scores.tolist() == [0, 0, 0, -1, -1, -1, -2, -2, -3, -3, -3]
    draws = {tuple(build("balanced", random(40, 6), labels=labels, number=n)[0].query(11, candidates)[0].tolist())
             for n in range(5)}  # fmt: skip
    assert len(draws) == 5
    assert SAMPLERS["balanced"].oracle and not any(kind.oracle for name, kind in SAMPLERS.items() if name != "balanced")


def farthest(points: np.ndarray, centers: np.ndarray, chosen: list[int]) -> Iterator[list[float]]:
    """Before each choice: each point's distance to the nearest center, -1 for points already chosen."""
    centers, free = list(centers), [True] * len(points)
    for number in chosen:
        yield [min(math.dist(row, center) for center in centers) if free[n] else -1 for n, row in enumerate(points)]
        free[number] = False
        centers.append(points[number])


@pytest.mark.parametrize("block", [1, 4, 256])
@pytest.mark.parametrize("case", ["random", "grid", "twins"])
def test_coreset_is_greedy(case, block, monkeypatch):
    """Each choice is a farthest remaining point. On a grid there are ties, any of which may win; twins come last."""
    monkeypatch.setattr(spread, "BLOCK", block)
    monkeypatch.setattr(spread, "ROWS", 7)
    h = random(40, 3)
    h = h.round() if case == "grid" else torch.cat([h[:20], h[:20]]) if case == "twins" else h
    sampler, candidates = build("coreset", h)
    chosen, scores = sampler.query(30, candidates)
    places = [candidates.tolist().index(image) for image in chosen.tolist()]
    found = farthest(h[candidates].double().numpy(), h[sampler.labeled].double().numpy(), places)
    for place, score, near in zip(places, scores.tolist(), found, strict=True):
        assert score == pytest.approx(max(near), abs=1e-4) and near[place] == pytest.approx(max(near), abs=1e-4)
    assert len(set(places)) == 30


def test_coreset_asks_the_teacher():
    z = random(60, 5, seed=7)
    sampler, candidates = build("coreset", random(60, 3), "--query_by", "teacher", z=z)
    places = [candidates.tolist().index(image) for image in sampler.query(20, candidates)[0].tolist()]
    found = farthest(z[candidates].double().numpy(), z[sampler.labeled].double().numpy(), places)
    assert places == [int(np.argmax(near)) for near in found]


def gradients(sampler, index: torch.Tensor) -> np.ndarray:
    """BADGE's embeddings written out: gradients of the last layer's weights, by autograd in float64."""
    found = []
    for image in index.tolist():
        weight = sampler.student.last.weight.detach().double().requires_grad_()
        logits = weight @ sampler.student.h[image].double()
        nn.functional.cross_entropy(logits[None], logits.argmax()[None]).backward()
        found.append(weight.grad.flatten().numpy())
    return np.stack(found)


def test_badge_is_kmeans_plusplus_on_the_gradients(monkeypatch):
    """One proposal at a time, all accepted, against the plain sequence with the same draws."""
    monkeypatch.setattr(spread, "BLOCK", 1)
    h = 2 * random(60, 6)
    h[30:45] = h[:15]
    sampler, candidates = build("badge", h)
    rows, source = gradients(sampler, candidates), build("badge", h)[0].generator
    squares = (rows**2).sum(1)
    expected = [int(squares.argmax())]
    while len(expected) < 30:
        near = np.min([((rows - rows[center]) ** 2).sum(1) for center in expected], axis=0)
        odds = near.cumsum() / near.sum()
        expected.append(int(np.searchsorted(odds, torch.rand(2, 1, dtype=torch.float64, generator=source)[0].item())))
    chosen, scores = sampler.query(30, candidates)
    assert chosen.tolist() == candidates[expected].tolist()
    for number, score in enumerate(scores.tolist()[1:], 1):
        near = min(math.dist(rows[expected[number]], rows[center]) for center in expected[:number])
        assert score == pytest.approx(near, rel=1e-3)
    assert scores[0].item() == pytest.approx(squares.max() ** 0.5, rel=1e-4)


def test_blocks_of_proposals_draw_with_the_right_odds(monkeypatch):
    """Five points on a line, three drawn 1,000 times: every order is as frequent as under k-means++."""
    monkeypatch.setattr(spread, "BLOCK", 8)
    line, source = torch.tensor([0.0, 1.0, 2.5, 6.0, 9.0]), torch.Generator().manual_seed(0)
    points = spread.Points(line[:, None])
    drawn = [tuple(spread.kmeans_plusplus(points, 3, source)[0].tolist()) for _ in range(1000)]
    for second, third in itertools.permutations(range(4), 2):
        odds = (line - line[4]) ** 2
        after = torch.minimum(odds, (line - line[second]) ** 2)
        expected = (odds[second] / odds.sum() * after[third] / after.sum()).item()
        assert drawn.count((4, second, third)) / 1000 == pytest.approx(expected, abs=0.04)


def test_badge_never_writes_the_gradients_out():
    """Two factors suffice: the product of the inner products is the inner product of the outer products."""
    a, b = random(20, 4), random(20, 6, seed=1)
    points = spread.Points(a, b)
    outer = (a[:, :, None] * b[:, None]).flatten(1).double()
    expected = torch.cdist(outer, outer) ** 2
    assert torch.allclose(points.between(slice(None), torch.arange(20)), expected, atol=1e-4)
    assert torch.allclose(points.nearest(torch.tensor([3, 5])), expected[:, [3, 5]].amin(1), atol=1e-4)


def typical(rows: np.ndarray) -> list[float]:
    """1 / mean distance to the 20 nearest neighbors."""
    found = []
    for number, row in enumerate(rows):
        others = sorted(math.dist(row, other) for place, other in enumerate(rows) if place != number)[:20]
        found.append(1 / (sum(others) / len(others) + 1e-5) if others else 0.0)
    return found


def unit(rows: torch.Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=1, keepdim=True)).double().numpy()


def test_typiclust_queries_the_most_typical_of_clusters_without_labels():
    """Four directions with 30, 9, 8 and 7 images; one of the largest is labelled: queries one of each of the others."""
    direction = torch.tensor([0] * 30 + [1] * 9 + [2] * 8 + [3] * 7)
    h = 10 * torch.eye(4)[direction] + 0.5 * random(54, 4)
    sampler, _ = build("typiclust", h)
    sampler.labeled, candidates = torch.tensor([4]), torch.tensor([n for n in range(54) if n != 4])
    chosen, scores = sampler.query(3, candidates)
    for number, (image, score) in enumerate(zip(chosen.tolist(), scores.tolist(), strict=True), 1):
        members = (direction == number).nonzero()[:, 0]
        expected = typical(unit(h[members]))
        assert image == members[int(np.argmax(expected))] and score == pytest.approx(max(expected), rel=1e-3)


def test_typiclust_takes_clusters_in_turn(monkeypatch):
    """A loop over given clusters: few labels first, then large ones; those of up to 5 images when others run out."""
    rows = random(80, 6)
    given = torch.randint(0, 9, (80,), generator=torch.Generator().manual_seed(5)).numpy()
    given[given == 8] = 7
    given[np.flatnonzero(given == 3)[4:]] = 2
    sampler, candidates = build("typiclust", rows, labeled=12)
    both = [*sampler.labeled.tolist(), *candidates.tolist()]
    monkeypatch.setattr(typiclust, "cluster", lambda *_: given)
    members = {number: np.flatnonzero(given == number) for number in np.unique(given)}
    scores = {}
    for places in members.values():
        scores |= dict(zip(places.tolist(), typical(unit(rows[both])[places]), strict=True))
    order = sorted(members, key=lambda number: (sum(members[number] < 12), -len(members[number])))
    expected = []
    for some in ([n for n in order if len(members[n]) > 5], [n for n in order if len(members[n]) <= 5]):
        left = {n: sorted((p for p in members[n].tolist() if p >= 12), key=lambda p: -scores[p]) for n in some}
        while any(left.values()):
            expected += [left[number].pop(0) for number in some if left[number]]
    chosen, _ = sampler.query(68, candidates)
    assert chosen.tolist() == [both[place] for place in expected]


@pytest.mark.parametrize("find", [lambda rows: typiclust.cluster(rows, 2, torch.Generator()), typiclust.typicality])
def test_scikit_learn_has_the_threads_that_torch_has(find, monkeypatch):
    """Regression: with --threads 1, runs side by side had its threads for every core."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors

    seen, before = [], torch.get_num_threads()
    for kind in (MiniBatchKMeans, NearestNeighbors):
        fit = kind.fit
        monkeypatch.setattr(kind, "fit", lambda self, rows, fit=fit: seen.extend(threadpool_info()) or fit(self, rows))
    with threadpool_limits(3):
        torch.set_num_threads(1)
        find(np.eye(4, dtype=np.float32))
        torch.set_num_threads(before)
    assert seen and {library["num_threads"] for library in seen} == {1}


@pytest.mark.parametrize("many", [47, 46])
def test_typical_confident_adds_two_ranks(many, monkeypatch):
    """Neighbors among all of up to `MANY` candidates; if there are more, within the cluster."""
    h = random(50, 6)
    sampler, candidates = build("typical_confident", h)
    with torch.no_grad():
        p = probabilities(sampler.student(sampler.look(candidates)))
    given = (np.arange(47) % 3 > 0).astype(int)  # clusters of 16 and 31
    monkeypatch.setattr(typical_confident, "MANY", many)
    monkeypatch.setattr(typiclust, "cluster", lambda *_: given)
    expected = np.array(typical(unit(h[candidates])))
    if many < 47:
        for number in (0, 1):
            expected[given == number] = typical(unit(h[candidates[given == number]]))
    scores = np.zeros(len(candidates))
    for values in (expected, [-shannon(row) for row in p]):
        scores += [sum(other < value for other in values) + 1 for value in values]
    expected = sorted(range(len(candidates)), key=lambda place: -scores[place])[:10]
    chosen, found = sampler.query(10, candidates)
    assert found.tolist() == pytest.approx([scores[place] / (2 * len(candidates)) for place in expected])
    places = {image: place for place, image in enumerate(candidates.tolist())}  # ties may come in either order
    assert len(set(chosen.tolist())) == 10
    assert [scores[places[image]] for image in chosen.tolist()] == scores[expected].tolist()


@pytest.mark.parametrize("choice", fast.CHOICES)
def test_a_thinned_classifier_is_the_classifier_with_dropped_units(choice):
    net = Dropping(3, 4)
    net.classifier.append(nn.ReLU()).append(nn.Linear(4, 5))  # without dropout, like AlexNet's last
    net = fast.apply(net, choice).eval()
    z, source = random(10, 3, 1, 1), torch.Generator().manual_seed(8)
    function = bald.thinned(net, (3, 1, 1), torch.Generator().manual_seed(8))
    first, second = (torch.rand(width, generator=source) for width in (12, 6))
    y = z.expand(-1, -1, 2, 2).flatten(1).double() * (first >= 0.25) / 0.75
    one, two, three = (layer for layer in net.classifier if isinstance(layer, nn.Linear))
    y = (y @ one.weight.double().T + one.bias).relu() * (second >= 0.5) / 0.5
    y = (y @ two.weight.double().T + two.bias).relu()
    expected = y @ three.weight.double().T + three.bias
    assert torch.allclose(function(z).double(), expected, atol=1e-5)


@pytest.mark.parametrize(("together", "looked_at"), [(1000, 200), (16, 3)])
def test_bald_is_the_mutual_information_of_prediction_and_function(monkeypatch, together, looked_at):
    monkeypatch.setattr(bald.BALD, "together", together)
    monkeypatch.setattr(bald, "CHUNK", looked_at)
    sampler, candidates = build("bald", random(40, 6), z=4 * random(40, 5, seed=2))
    chosen, scores = sampler.query(37, candidates)
    p = np.stack([probabilities(each(sampler.targets.z[0]).detach()) for each in sampler.functions])
    assert len(p) == 10
    information = [shannon(p[:, image].mean(0)) - np.mean([shannon(row) for row in p[:, image]]) for image in range(40)]
    assert scores.tolist() == pytest.approx([information[image] for image in chosen.tolist()], abs=1e-5)
    assert sorted(chosen.tolist()) == sorted(candidates.tolist()) and scores.min() > -1e-6 and scores.max() > 0.01


POOLS = {
    "random": random(30, 6),
    "equal": random(1, 6).expand(30, -1),
    "zero": torch.zeros(30, 6),
    "twins": random(15, 6).repeat(2, 1),
    "huge": 1e4 * random(30, 6),
    "one candidate": random(4, 6),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("name", "asked"), [*((name, "student") for name in KD), *((name, "teacher") for name in ASKING)]
)
# not all warnings: one about a file left open by another test may come during this one
@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
def test_any_pool_is_queried_once_with_finite_scores(name, asked, pool):
    """The same seed queries the same; a budget larger than the pool takes all."""
    h = POOLS[pool]
    options = {"teacher": h[:, :4], "z": h[:, :5], "labels": torch.arange(len(h)) % 4}
    words = ["--query_by", asked] if asked == "teacher" else []
    for count in (1, 10, 100):
        sampler, candidates = build(name, h, *words, **options)
        chosen, scores = sampler.query(count, candidates)
        assert len(chosen) == len(scores) == min(count, len(candidates))
        assert len(set(chosen.tolist())) == len(chosen) and set(chosen.tolist()) <= set(candidates.tolist())
        assert scores.isfinite().all() and chosen.dtype == torch.int64
        torch.rand(1)
        np.random.rand(1)
        again = build(name, h, *words, **options)[0].query(count, candidates)
        assert torch.equal(chosen, again[0]) and torch.equal(scores, again[1])
    if pool == "zero" and name in ("margin", "entropy", "least_confidence", "coreset", "typical_confident"):
        assert torch.equal(chosen, candidates)  # equal scores keep the candidates' order


@pytest.mark.parametrize("name", ["random", "balanced", "badge", "bald"])
def test_what_draws_draws_anew_in_each_round(name):
    labels = torch.arange(30) % 4
    chosen = [build(name, random(30, 6), labels=labels, number=number) for number in (0, 1)]
    first, second = (sampler.query(15, candidates)[0].tolist() for sampler, candidates in chosen)
    assert first != second


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("KD", "--sampler marginn", "--sampler: invalid choice: 'marginn' (choose from"),
        ("Random", "--sampler gap", "--sampler: KD and EnCoDe have gap, Random has not"),
        ("Random", "--query_by teacher", "--query_by: no such flag"),
        (
            "KD",
            "--query_by teacher",
            "--query_by teacher: --sampler random does not ask one network; these do: least_con",
        ),
        ("KD", "--query_by teacher --sampler gap", "--sampler gap does not ask one network"),
        ("EnCoDe", "--query_by teacher", "--sampler vae does not ask one network"),
        ("KD", "--sampler bald", "--sampler bald: the student of AlexNet has no dropout to draw functions by; ask a"),
        ("Random", "--sampler bald", "--sampler bald: the student of AlexNet has no dropout"),
        ("Random", "--sampler balanced --labels x.csv", "--sampler balanced: reads labels before it buys them"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused_in_one_line(method, words, message):
    with pytest.raises(InputError) as caught:
        parse(method, *words.split())
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_dropout_is_where_the_networks_have_it():
    found = [
        (model, part) for model in networks.PAIRS for part in ("teacher", "student") if networks.drops(model, part)
    ]
    assert found == [("AlexNet", "teacher"), ("VGG", "teacher")]
    with pytest.raises(InputError, match="the teacher of ResNet has no dropout"):
        parse("KD", "--sampler", "bald", "--query_by", "teacher", model="ResNet")
    assert parse("Random", "--sampler", "bald", "--network", "teacher").sampler == "bald"


# A user's own pair and strategy


class Gated(SplitNet):
    """A linear gate among the features, registered after the classifier; `head` ends it."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.classifier, self.convolution, self.gate = head, nn.Conv2d(3, 6, 3, stride=4), nn.Linear(6, 6)

    def features(self, x):
        z = self.convolution(x)
        return z * self.gate(z.mean((2, 3))).sigmoid()[:, :, None, None]


def _head(*layers: nn.Module) -> nn.Sequential:
    pool = nn.AdaptiveAvgPool2d(3)
    return nn.Sequential(
        OrderedDict(pool=pool, flatten=nn.Flatten(), **{str(n): each for n, each in enumerate(layers)})
    )


@pytest.mark.parametrize(
    ("make", "width", "seen"),
    [
        (lambda: _head(nn.Linear(54, 5), nn.ReLU(), nn.Linear(5, 4)), 5, lambda net, z: net.classifier[:-1](z)),
        (lambda: _head(nn.Linear(54, 4)), 54, lambda net, z: net.pool(z).flatten(1)),
        (lambda: nn.Sequential(nn.Conv2d(6, 4, 2), nn.Flatten()), 24, lambda net, z: z.flatten(1)),
    ],
    ids=["two linear layers", "one", "none"],
)
@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_students_features_are_what_its_last_linear_layer_sees(make, width, seen, choice):
    """Regression: the last one registered was the gate's, none was an IndexError, faster layers hid the only one."""
    torch.manual_seed(0)
    net = Gated(make()).eval()
    pixels = torch.randint(256, (7, 9, 9, 3), dtype=torch.uint8)
    with torch.no_grad():
        z = net.features(augment.pixels(pixels, View(torch.arange(7))))
        expected = seen(net, z), net.classifier(z)
        images = SimpleNamespace(train=pixels, device=pixels.device, size=9)
        this_round = SimpleNamespace(number=0, images=images, labeled=torch.arange(2))
        found = Sampler(parse("KD"), this_round, fast.apply(net, choice), None).all_outputs(torch.arange(7))
    assert found[0].shape == (7, width)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("chosen", "scores", "said"),
    [
        ([0, 1, 1], [1.0, 2.0, 3.0], r"chose 3 images \(2 different\) of 3 asked for, with 3 scores; its"),
        ([0, 1], [1.0, 2.0], r"chose 2 images \(2 different\) of 3 asked for"),
        ([0, 1, 2, 3], [1.0, 2.0, 3.0, 4.0], r"chose 4 images \(4 different\) of 3 asked for"),
        ([0, 1, 2], [1.0, 2.0], r"with 2 scores"),
        ([0, 1, 2], [1.0, math.nan, 3.0], r"1 of 3 scores are NaN"),
    ],
)
def test_a_strategy_that_chooses_wrongly_is_refused(chosen, scores, said):
    """Labels bought twice or not at all, or NaN as the highest score, must not go unnoticed."""

    class Mine(Sampler):
        def choose(self, count, candidates):
            return torch.tensor(chosen), torch.tensor(scores)

    this_round = SimpleNamespace(number=0, images=None, labeled=torch.arange(2))
    sampler = Mine(parse("KD", "--sampler", "margin"), this_round, nn.Identity(), None)
    with pytest.raises(InputError, match=rf"^--sampler margin: .*{said}"):
        sampler.check(3, *sampler.query(3, torch.arange(5)))


def test_the_grid_offers_every_strategy(tmp_path):
    assert flags.OFFERED["EnCoDe"] == list(SAMPLERS) and flags.OFFERED["KD"] == KD
    words = ["--models", "AlexNet", "--datasets", "CIFAR10", "--methods", "EnCoDe", "--save_path", str(tmp_path)]
    args, passed = runner.parse([*words, "--samplers", "badge", "margin", "--query_by", "teacher"])
    found = jobs.jobs(args, passed)
    assert [(job.args().sampler, job.args().query_by) for job in found] == [("badge", "teacher"), ("margin", "teacher")]


@pytest.mark.slow
@pytest.mark.parametrize("name", KD)
def test_a_run_with_each_strategy_names_it(name, teacher, tmp_path):
    """KD's own main, two rounds; the teacher is asked where it can be."""
    words = [*TOY, *BUDGET, "--rounds", "2", "--train_epochs", "1", "--batch_size", "80", "--teacher", str(teacher)]
    asked = "teacher" if SAMPLERS[name].asks else "student"
    run("KD", *words, "--sampler", name, "--query_by", asked, "--save_path", str(tmp_path))
    with (tmp_path / "kd-seed5" / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sampler"], row["query_by"], row["labeled"]) for row in rows] == [
        (name, asked, n) for n in ("40", "100")
    ]
    with (tmp_path / "kd-seed5" / "queries.csv").open(encoding="utf-8") as file:
        queried = [row["index"] for row in csv.DictReader(file)]
    assert len(set(queried)) == len(queried) == 100
