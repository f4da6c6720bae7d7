"""The distillation losses against their papers' formulas in float64 loops, and where these have no gradient."""

import math
from types import SimpleNamespace

import pytest
import torch

from common import losses, objective
from common.losses import FEATURE_LOSSES, LOGIT_LOSSES
from common.objective import Forward, Outputs

ARGS = SimpleNamespace(temperature=3.0, fast="off")
ENTROPY = ("pseudo_label", "slam")  # cross entropies: at equality they are not 0
ALL = [*((LOGIT_LOSSES, name) for name in LOGIT_LOSSES), *((FEATURE_LOSSES, name) for name in FEATURE_LOSSES)]


def batch(registry: dict, count: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random outputs of the student and the teacher: logits (B, 4), or features (B, 3, 2, 2)."""
    source = torch.Generator().manual_seed(seed)
    shape = (count, 4) if registry is LOGIT_LOSSES else (count, 3, 2, 2)
    return tuple(2 * torch.randn(shape, generator=source) for _ in range(2))


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def decoupled(
    student: torch.Tensor, teacher: torch.Tensor, labels: list[int], beta: float | None = None
) -> list[float]:
    """Each image's DKD, without T^2; beta None takes the 1 - p_target of the teacher, with which DKD is plain KD."""
    found = []
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels, strict=True):
        p, q = softmax(t, ARGS.temperature), softmax(s, ARGS.temperature)
        target = divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        others = [[value / (1 - row[y]) for k, value in enumerate(row) if k != y] for row in (p, q)]
        found.append(target + (1 - p[y] if beta is None else beta) * divergence(*others))
    return found


def test_dkd_is_the_papers_with_the_labels_as_targets():
    student, teacher = batch(LOGIT_LOSSES)
    labels = [3, 0, 1, 1, 2]
    expected = 9 * sum(decoupled(student, teacher, labels, beta=8)) / 5
    assert losses.dkd(student, teacher, ARGS, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)


def test_dkd_without_labels_takes_the_teachers_word():
    student, teacher = batch(LOGIT_LOSSES)
    expected = 9 * sum(decoupled(student, teacher, teacher.argmax(1).tolist(), beta=8)) / 5
    assert losses.dkd(student, teacher, ARGS).item() == pytest.approx(expected, rel=1e-5)


def test_dkd_by_hand():
    """T = 3, a uniform student: b = (1/2, 1/2) against (1/3, 2/3), the others (4/5, 1/5) against halves."""
    teacher = 3 * torch.tensor([[0.5, 0.4, 0.1]]).log()
    expected = 0.5 * math.log(1.5) + 0.5 * math.log(0.75) + 8 * (0.8 * math.log(1.6) + 0.2 * math.log(0.4))
    assert losses.dkd(torch.zeros(1, 3), teacher, ARGS).item() == pytest.approx(9 * expected, rel=1e-5)


def test_dkd_weighted_by_the_teachers_doubt_is_kl(monkeypatch):
    """The paper's own identity: KD is the target's part plus 1 - p_target times the others'."""
    student, teacher = batch(LOGIT_LOSSES, count=1)
    doubt = 1 - torch.softmax(teacher / 3, 1)[0, 2].item()
    monkeypatch.setattr(losses, "DKD_BETA", doubt)
    expected = losses.kl(student, teacher, ARGS).item()
    assert losses.dkd(student, teacher, ARGS, torch.tensor([2])).item() == pytest.approx(expected, rel=1e-5)
    assert 9 * decoupled(student, teacher, [2])[0] == pytest.approx(expected, rel=1e-5)


def test_the_objective_gives_dkd_the_labels_it_has():
    """It gets the labelled batch's labels, and none for the pool's."""
    student, teacher = batch(LOGIT_LOSSES)
    net = SimpleNamespace(classifier=lambda z: z)
    args = SimpleNamespace(ce_wt=0, feat_wt=0, adv_wt=0, logit_wt=1.0, logit_loss="dkd", temperature=3.0)
    y = torch.tensor([3, 0, 1, 1, 2])
    labeled = Forward(None, student, y, Outputs(None, teacher))
    pool = Forward(None, student, None, Outputs(None, teacher))
    found = [objective.task_loss(args, net, None, None, labeled, each, None)["logit"] for each in (labeled, pool)]
    assert found == [losses.dkd(student, teacher, ARGS, y), losses.dkd(student, teacher, ARGS)]
    assert found[0] != found[1]


@pytest.mark.parametrize("registry", [LOGIT_LOSSES, FEATURE_LOSSES])
def test_cosine(registry):
    student, teacher = batch(registry)
    rows = zip(student.flatten(1).tolist(), teacher.flatten(1).tolist(), strict=True)
    cosines = [sum(a * b for a, b in zip(s, t, strict=True)) / math.hypot(*s) / math.hypot(*t) for s, t in rows]
    assert registry["cosine"](student, teacher, ARGS).item() == pytest.approx(1 - sum(cosines) / 5, rel=1e-5)


def test_cosine_by_hand():
    """Angles of 0, 90 and 180 degrees, whatever the lengths."""
    student, teacher = torch.tensor([[2.0, 0], [0, 3], [1, 1]]), torch.tensor([[5.0, 0], [1, 0], [-2, -2]])
    assert losses.cosine(student, teacher, ARGS).item() == pytest.approx((0 + 1 + 2) / 3)


def test_similarity():
    student, teacher = batch(FEATURE_LOSSES)
    matrices = []
    for features in (student, teacher):
        rows = features.flatten(1).tolist()
        products = [[sum(a * b for a, b in zip(r, s, strict=True)) for s in rows] for r in rows]
        matrices.append([[value / math.hypot(*row) for value in row] for row in products])
    squares = [(matrices[0][i][j] - matrices[1][i][j]) ** 2 for i in range(5) for j in range(5)]
    found = losses.similarity(student, teacher, ARGS).item()
    assert found == pytest.approx(sum(squares) / 5**2, rel=1e-5)


def test_similarity_by_hand():
    """Rows (1, 0), (0, 1) have the identity, equal rows (1, 1)/sqrt(2) everywhere."""
    found = losses.similarity(torch.eye(2), torch.ones(2, 2), ARGS).item()
    assert found == pytest.approx((2 * (1 - 0.5**0.5) ** 2 + 2 * 0.5) / 4)


def huber(a: float, b: float) -> float:
    return (a - b) ** 2 / 2 if abs(a - b) <= 1 else abs(a - b) - 0.5


def relations(features: torch.Tensor) -> tuple[dict, dict]:
    """Distances of pairs over their mean, and cosines at the middle image of triplets."""
    rows = features.flatten(1).tolist()
    distances = {(i, j): math.dist(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j}
    mean = sum(distances.values()) / len(distances)
    angles = {}
    for i, j in distances:
        for k in range(len(rows)):
            if k not in (i, j):
                edges = zip(rows[i], rows[j], rows[k], strict=True)
                product = sum((a - b) * (c - b) for a, b, c in edges)
                sides = distances[i, j] * distances[k, j]
                angles[i, j, k] = product / sides if sides else 0.0
    return {pair: distance / mean for pair, distance in distances.items()}, angles


@pytest.mark.parametrize("case", ["alike", "far apart", "twins"])
def test_relational(case):
    """Far apart, distances differ by more than the Huber loss's 1. Twins make no angle, wherever they are."""
    student, teacher = batch(FEATURE_LOSSES, count=30 if case == "twins" else 5)
    if case == "far apart":
        student[0] *= 30
        teacher[1] *= 30
    if case == "twins":
        student += 100
        student[3] = student[1]
        teacher[2] = teacher[4]
    parts = []
    for mine, other in zip(relations(student), relations(teacher), strict=True):
        parts.append(sum(huber(mine[key], other[key]) for key in mine) / len(mine))
    found = losses.relational(student, teacher, ARGS).item()
    assert found == pytest.approx(25 * parts[0] + 50 * parts[1], rel=1e-4)


def test_relational_by_hand():
    """A right angle between sides of 3 and 4, against three points on a line at 0, 1 and 2."""
    student = torch.tensor([[3.0, 0], [0, 0], [0, 4]])
    teacher = torch.tensor([[0.0], [1], [2]])
    pairs = [(3 / 4 - 3 / 4), (4 / 4 - 3 / 4), (5 / 4 - 6 / 4)]
    distance = sum(difference**2 / 2 for difference in pairs) / 3
    angle = (1**2 / 2 + (3 / 5 - 1) ** 2 / 2 + (4 / 5 - 1) ** 2 / 2) / 3
    assert losses.relational(student, teacher, ARGS).item() == pytest.approx(25 * distance + 50 * angle, rel=1e-5)


@pytest.mark.parametrize(("registry", "name"), [each for each in ALL if each[1] not in ENTROPY])
def test_a_loss_is_zero_at_equality_and_only_there(registry, name):
    student, teacher = batch(registry)
    assert registry[name](teacher.clone(), teacher, ARGS).item() == pytest.approx(0, abs=1e-6)
    assert registry[name](student, teacher, ARGS).item() > 1e-3
    student.requires_grad_()
    registry[name](student, teacher, ARGS).backward()
    with torch.no_grad():  # against the gradient it falls
        lower = registry[name](student - 1e-3 * student.grad, teacher, ARGS)
    assert lower < registry[name](student, teacher, ARGS)


DEGENERATE = {
    "zero": lambda x: torch.zeros_like(x),
    "equal rows": lambda x: x[:1].expand_as(x),
    "two equal rows": lambda x: torch.cat([x[:1], x[:-1]]),
    "nearly equal rows": lambda x: x[:1] + 1e-20 * x,
    "huge": lambda x: 1e4 * x,
    "one image": lambda x: x[:1],
    "two images": lambda x: x[:2],
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize(("registry", "name"), ALL)
def test_values_and_gradients_are_finite(registry, name, case):
    """Lengths and distances of 0 have no derivative, and a confident teacher must not produce 0 * inf."""
    student, teacher = batch(registry)
    change = DEGENERATE[case]
    pairs = [(change(student), change(teacher))]
    if "image" not in case:
        pairs += [(change(student), teacher), (student, change(teacher)), (change(student), change(student))]
    for s, t in pairs:
        s = s.clone().requires_grad_()
        loss = registry[name](s, t, ARGS)
        loss.backward()
        assert loss.isfinite() and loss >= 0 and s.grad.isfinite().all() and s.grad.abs().max() < 1e6


def test_the_cosine_of_nothing_is_undecided():
    """A dead decoder's zero features: half, with a gradient that leads away from zero."""
    student = torch.zeros(1, 3, requires_grad=True)
    loss = losses.cosine(student, torch.tensor([[0.0, 4.0, 3.0]]), ARGS)
    loss.backward()
    assert loss.item() == pytest.approx(0.5) and student.grad[0, 1] < 0 and student.grad[0, 0] == 0


def test_distances_keep_what_is_close_apart_and_rounding_together():
    rows = torch.tensor([[1.0, 0], [1 + 2**-23, 0], [1 + 2**-13, 0], [0, 5]])
    found = losses._distances(rows)
    assert torch.equal(found, found.T) and found[0, 1] == found[1, 1] == 0
    assert found[0, 2].item() == pytest.approx(2**-13, rel=1e-4) and found[0, 3].item() == pytest.approx(26**0.5)


def test_slam_mixes_the_student_as_the_teacher_errs():
    student, teacher = batch(LOGIT_LOSSES)
    teacher[0] = torch.tensor([9.0, 0, 0, 0])  # confident: nothing is mixed
    expected = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        f, p = softmax(s, 1), softmax(t, 1)
        right, held, top = max(p), 0.0, set()
        for k in sorted(range(4), key=lambda k: -p[k]):
            if held < 0.95:
                top.add(k)
            held += p[k]
        mixed = [right * f[k] + (1 - right) * (1 - f[k]) * (k in top) for k in range(4)]
        expected -= sum(p[k] * math.log(mixed[k]) for k in range(4)) / 5
    assert losses.slam(student, teacher, ARGS).item() == pytest.approx(expected, rel=1e-5)


def pearson(a: list[float], b: list[float]) -> float:
    a, b = ([value - sum(row) / len(row) for value in row] for row in (a, b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_dist_correlates_within_images_and_within_classes():
    student, teacher = batch(LOGIT_LOSSES)
    p, q = ([softmax(row, 3) for row in logits.tolist()] for logits in (student, teacher))
    images = [1 - pearson(s, t) for s, t in zip(p, q, strict=True)]
    classes = [1 - pearson(s, t) for s, t in zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)]
    expected = 9 * (sum(images) / 5 + sum(classes) / 4)
    assert losses.dist(student, teacher, ARGS).item() == pytest.approx(expected, rel=1e-4)


def test_standardized_kl_is_kl_of_each_images_standard_scores():
    student, teacher = batch(LOGIT_LOSSES)
    scores = []
    for row in [*student.tolist(), *teacher.tolist()]:
        mean = sum(row) / 4
        deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / 4)
        scores.append(softmax([(value - mean) / deviation for value in row], 3))
    expected = 9 * sum(divergence(t, s) for s, t in zip(scores[:5], scores[5:], strict=True)) / 5
    assert losses.standardized_kl(student, teacher, ARGS).item() == pytest.approx(expected, rel=1e-4)
    larger = losses.standardized_kl(3 * student + 7, 0.5 * teacher, ARGS).item()
    assert larger == pytest.approx(expected, rel=1e-4)


def test_confident_kl_weighs_each_image_by_the_teachers_largest_probability():
    student, teacher = batch(LOGIT_LOSSES)
    weights = [max(softmax(t, 1)) for t in teacher.tolist()]
    each = [divergence(softmax(t, 3), softmax(s, 3)) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    expected = 9 * sum(w * d for w, d in zip(weights, each, strict=True)) / sum(weights)
    assert losses.confident_kl(student, teacher, ARGS).item() == pytest.approx(expected, rel=1e-5)
