"""Distillation losses by name. To add one, write a function here and list it in a registry; its flag then offers it.

A loss takes the student's and the teacher's tensors and the run's flags, and returns a scalar. `objective` passes it
float32 tensors, even under autocast. Its value is at least 0; value and gradients are finite, also for equal rows and
for huge logits. A loss that also takes the batch's labels is listed in `WITH_LABELS`, one that works with `--mixup` in
`BLENDABLE`, and one that ignores `--temperature` in `UNSOFTENED`, so that a flag without effect is reported.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from common import fast

DKD_ALPHA, DKD_BETA = 1.0, 8.0  # weights of the target class and of the others: the authors' usual values
RKD_DISTANCE, RKD_ANGLE = 25.0, 50.0  # the paper's weights
SLAM_TOP = 0.95
NORM = 1e-4  # norm by which a shorter vector is divided: the cosine of a zero vector has a finite gradient


def mse(student: Tensor, teacher: Tensor, args) -> Tensor:
    """Mean squared error of two tensors of one shape: the paper's loss, for features and for logits."""
    return fast.mse_loss(student, teacher, args.fast)


def kl(student: Tensor, teacher: Tensor, args) -> Tensor:
    """KL(teacher || student) of logits (B, classes) softened by `--temperature` T, times T^2, mean over the batch.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531; the factor T^2 is from its section 2.
    """
    soft_student = F.log_softmax(student / args.temperature, dim=1)
    soft_teacher = F.log_softmax(teacher / args.temperature, dim=1)
    return F.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True) * args.temperature**2


def pseudo_label(student: Tensor, teacher: Tensor, args) -> Tensor:
    """Cross entropy with the teacher's class where its probability is at least 0.95, averaged over the whole batch.

    FixMatch, Sohn et al. 2020, https://arxiv.org/abs/2001.07685, equation 4; logits (B, classes) each.
    """
    confidence, label = teacher.softmax(1).max(1)
    return (F.cross_entropy(student, label, reduction="none") * (confidence >= 0.95)).mean()


def confident_kl(student: Tensor, teacher: Tensor, args) -> Tensor:
    """`kl`, each image weighted by the teacher's confidence (its largest probability) relative to the batch's mean."""
    confidence = teacher.softmax(1).amax(1)
    soft_student = F.log_softmax(student / args.temperature, dim=1)
    soft_teacher = F.log_softmax(teacher / args.temperature, dim=1)
    each = F.kl_div(soft_student, soft_teacher, reduction="none", log_target=True).sum(1)
    return (each * confidence / confidence.mean()).mean() * args.temperature**2


def standardized_kl(student: Tensor, teacher: Tensor, args) -> Tensor:
    """`kl` of logits standardized per image (mean 0, standard deviation 1): the student learns their shape, not scale.

    Sun et al. 2024, https://arxiv.org/abs/2403.01427, algorithm 1; the authors' code uses n - 1 in the deviation and
    weights the loss by 9 at temperature 2.
    """
    return kl(*(F.layer_norm(logits, logits.shape[1:], eps=1e-6) for logits in (student, teacher)), args)


def dist(student: Tensor, teacher: Tensor, args) -> Tensor:
    """1 - correlation of the softened probabilities (B, classes), within each image and within each class of the batch.

        T^2 * [mean over images (1 - Pearson) + mean over classes (1 - Pearson)]

    DIST, Huang et al. 2022, https://arxiv.org/abs/2205.10536; T is `--temperature`. The paper's weights of the two
    means, beta and gamma, are 1 here. A class that hardly varies in a batch, by less than NORM, counts less.
    """
    s, t = ((logits / args.temperature).softmax(1) for logits in (student, teacher))
    apart = [cosine(*(p - p.mean(1, keepdim=True) for p in pair), args) for pair in ((s, t), (s.T, t.T))]
    return sum(apart) * args.temperature**2


def slam(student: Tensor, teacher: Tensor, args) -> Tensor:
    """Student-label mixing: the student's prediction is mixed as the teacher errs, then compared with the teacher's.

        cross entropy of softmax(teacher) with  a f + (1 - a) (1 - f) * top,   f = softmax(student)

    The teacher is right with probability a, and errs among its `top` classes, the fewest that hold SLAM_TOP of its
    probability. Kontonis et al. 2023, https://arxiv.org/abs/2302.03806, without the factor 1 / (k - 1) (remark B.1).
    The paper fits a on held-out labels; here a is the teacher's largest probability, which costs no labels.
    """
    p, f = teacher.softmax(1), student.softmax(1)
    right = p.amax(1, keepdim=True)
    sorted_p, order = p.sort(1, descending=True)
    above = sorted_p @ p.new_ones(p.shape[1], p.shape[1]).triu(1)  # cumsum is nondeterministic on CUDA
    top = (above < SLAM_TOP).to(p.dtype).gather(1, order.argsort(1))  # older scatters cannot be recorded
    mixed = right * f + (1 - right) * (1 - f) * top
    return -(p * mixed.clamp_min(1e-12).log()).sum(1).mean()


def dkd(student: Tensor, teacher: Tensor, args, y: Tensor | None = None) -> Tensor:
    """Decoupled KD of logits (B, classes): KL of the target class against the rest, and KL among the rest.

        T^2 * [DKD_ALPHA * KL(b_teacher || b_student) + DKD_BETA * KL(q_teacher || q_student)],   mean over the batch

    b = (p_target, 1 - p_target) with p = softmax(logits / T) and T `--temperature`; q is the softmax over the other
    classes. The target is the label y (B,) or, for a batch without labels, as on the pool, the teacher's class.
    Zhao et al. 2022, https://arxiv.org/abs/2203.08679, section 3; the authors warm the weight up from 0 over the first
    epochs, and use another DKD_BETA for some pairs.
    """
    target = teacher.argmax(1) if y is None else y
    target = F.one_hot(target, teacher.shape[1]).bool()
    binary, others = [], []
    for logits in (student / args.temperature, teacher / args.temperature):
        log_p = F.log_softmax(logits, dim=1)
        # -1e30 leaves a class out; -inf would make NaN by 0 * inf
        binary.append(torch.stack([log_p.masked_fill(~target, -1e30), log_p.masked_fill(target, -1e30)]).logsumexp(2))
        others.append(F.log_softmax(logits.masked_fill(target, -1e30), dim=1))
    divergence = DKD_ALPHA * _kl(*binary) + DKD_BETA * _kl(*others)
    return divergence / len(student) * args.temperature**2


def cosine(student: Tensor, teacher: Tensor, args) -> Tensor:
    """1 - cosine of each image's two vectors (B, ...), mean over the batch.

    Computed as half the squared distance between the unit vectors, which loses no digits near 0.
    """
    s, t = _unit(student.flatten(1)), _unit(teacher.flatten(1))
    return (s - t).square().sum(1).mean() / 2


def similarity(student: Tensor, teacher: Tensor, args) -> Tensor:
    """Similarity-preserving: mean squared difference of the batch's two similarity matrices (B, B).

    A matrix is Q Q^T of the features Q (B, values), each row divided by its length.
    Tung & Mori 2019, https://arxiv.org/abs/1907.09682, section 2; the paper weights it by 3000.
    """
    s, t = (_unit(q @ q.T) for q in (student.flatten(1), teacher.flatten(1)))
    return (s - t).square().mean()


def relational(student: Tensor, teacher: Tensor, args) -> Tensor:
    """Relational KD: distances and angles among a batch's images, RKD_DISTANCE * pairs + RKD_ANGLE * triplets.

    Mean Huber losses (delta 1) between student and teacher: of the distances of all pairs, divided by their mean, and
    of the cosines of the angles that i and k make at j, for all triplets. The cosines are computed from the distances,
    so that memory is B^3 values whatever the features' size; coincident images make no angle (0).
    Park et al. 2019, https://arxiv.org/abs/1904.05068, section 3.2.
    """
    pairs = ~torch.eye(len(student), dtype=torch.bool, device=student.device)  # (B, B)
    triplets = pairs[:, :, None] & pairs[None] & pairs[:, None]  # (i, j, k)
    relations = []
    for features in (student.flatten(1), teacher.flatten(1)):
        d = _distances(features)
        mean = d.sum() / pairs.sum().clamp(min=1)
        halves = d**2 / 2
        sides = d[:, :, None] * d[None]  # |ij| |jk|
        cosines = (halves[:, :, None] + halves[None] - halves[:, None]) / sides.clamp(min=1e-30)
        relations.append((d / mean.clamp(min=1e-12), cosines.masked_fill(~triplets | (sides == 0), 0)))
    (s_distances, s_angles), (t_distances, t_angles) = relations
    distance = F.smooth_l1_loss(s_distances, t_distances, reduction="sum") / pairs.sum().clamp(min=1)
    angle = F.smooth_l1_loss(s_angles, t_angles, reduction="sum") / triplets.sum().clamp(min=1)
    return RKD_DISTANCE * distance + RKD_ANGLE * angle


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities, summed."""
    return F.kl_div(student, teacher, reduction="sum", log_target=True)


def _distances(rows: Tensor) -> Tensor:
    """Euclidean distances (B, B) between rows; 0, with gradient 0, between rows equal to within a millionth.

    By one product in float64: in float32 equal rows would come out apart, and torch.cdist is many times slower.
    """
    rows = rows.double()
    rows = rows - rows.mean(0)
    products = rows @ rows.T
    both = products.diagonal()[:, None] + products.diagonal()
    squared = both - 2 * products
    apart = squared > 1e-12 * both
    return torch.where(apart, squared, 1.0).sqrt().float() * apart


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=1, eps=NORM)


# --feature_loss: phi(z) and T_features, (B, C, H, W)
FEATURE_LOSSES: dict[str, Callable] = {
    "mse": mse,
    "cosine": cosine,
    "similarity": similarity,
    "relational": relational,
}
# --logit_loss: C(z) and T_logits, (B, classes)
LOGIT_LOSSES: dict[str, Callable] = {
    "mse": mse,
    "kl": kl,
    "dkd": dkd,
    "cosine": cosine,
    "dist": dist,
    "standardized_kl": standardized_kl,
    "confident_kl": confident_kl,
    "slam": slam,
    "pseudo_label": pseudo_label,
}
WITH_LABELS = ("dkd",)  # these also take the batch's labels (B,), or None if it has none
UNSOFTENED = ("mse", "cosine", "slam", "pseudo_label")  # these ignore --temperature
BLENDABLE = ("kl", "dkd", "dist")  # these compare only softened probabilities, which --mixup blends
