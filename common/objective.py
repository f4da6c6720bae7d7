"""The losses that an update of the student and an update of the sampler minimize.

F and C are the student's feature extractor and classifier, z = F(x); phi is the decoder, T the frozen teacher, and D
the sampler's discriminator, which outputs the logit that an image is labelled. L and U are the labelled and unlabelled
pools. Every loss is computed in float32, even under autocast: in bfloat16 a small KL divergence comes out negative.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.losses import FEATURE_LOSSES, LOGIT_LOSSES, WITH_LABELS


class Outputs(NamedTuple):
    """The teacher's outputs for a batch."""

    features: Tensor | None  # (B, C, H, W) float32, after its average pool; None if not distilled
    logits: Tensor  # (B, classes) float32


class Forward(NamedTuple):
    """A batch of one stream as the student sees it."""

    x: Tensor  # (B, 3, S, S)
    z: Tensor | None  # F(x), (B, c, h, w); None if not needed
    y: Tensor | None = None  # labels (B,) int64
    teacher: Outputs | None = None


def task_loss(
    args,
    student: nn.Module,
    phi: nn.Module | None,
    sampler,
    labeled: Forward | None,
    distilled: Forward | None,
    unlabeled: Forward | None,
) -> dict[str, Tensor]:
    """The terms of the task loss; their sum trains the student and phi. A term of weight 0 is not computed.

        ce_wt * CE(C(z_L), y)  +  feat_wt * MSE(phi(z), T_features)  +  logit_wt * MSE(C(z), T_logits)
            +  adv_wt * [BCE(D(z_L), 1) + BCE(D(z_U), 1)] / 2

    Args:
        args: the weights; `--feature_loss` and `--logit_loss` name the losses used in place of the two MSEs.
        sampler: D is `sampler.judge(z)`; `sampler.networks` are frozen here.
        labeled: a batch of L with its labels; None if no term needs it.
        distilled: the batch to distill on, with the teacher's outputs; None trains without a teacher. In the paper it
            is `labeled` itself; with `--distill_on pool` it is a batch of L and U.
        unlabeled: a batch of U; None omits the adversarial term, as during the sampler's warm-up.
    """
    C, terms = student.classifier, {}
    of_labeled = C(labeled.z) if args.ce_wt else None
    if args.ce_wt:
        terms["ce"] = args.ce_wt * cross_entropy(of_labeled, labeled.y, args.label_smoothing)
    if distilled is not None and args.feat_wt:
        terms["feat"] = args.feat_wt * feature_loss(args, phi(distilled.z), distilled.teacher.features)
    if distilled is not None and args.logit_wt:
        logits = of_labeled if distilled is labeled and args.ce_wt else C(distilled.z)
        terms["logit"] = args.logit_wt * logit_loss(args, logits, distilled.teacher.logits, distilled.y)
    if unlabeled is not None and args.adv_wt:
        D = sampler.judge
        with frozen(sampler.networks):
            terms["adv"] = args.adv_wt * adversarial_loss(D(labeled.z), D(unlabeled.z))
    return terms


def sampler_loss(labeled: Tensor, unlabeled: Tensor) -> Tensor:
    """The discriminator's loss, [BCE(D(L), 1) + BCE(D(U), 0)] / 2, from D's logits (B,) for both pools."""
    return (_bce(labeled, 1) + _bce(unlabeled, 0)) / 2


def adversarial_loss(labeled: Tensor, unlabeled: Tensor) -> Tensor:
    """[BCE(D(L), 1) + BCE(D(U), 1)] / 2 from D's logits (B,): small when D takes both pools for labelled."""
    return (_bce(labeled, 1) + _bce(unlabeled, 1)) / 2


def vae_loss(x: Tensor, rebuilt: Tensor, mean: Tensor, log_variance: Tensor, beta: float) -> Tensor:
    """Reconstruction MSE + beta * KL(q || N(0, 1)), averaged over values and over latent dimensions.

    Args:
        x, rebuilt: the VAE's input and its reconstruction, of one shape.
        mean, log_variance: those of q, the latent's distribution, (B, latent) each.
    """
    with _float32(x):
        mean, log_variance = mean.float(), log_variance.float()
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).mean()
        return functional.mse_loss(rebuilt.float(), x.float()) + beta * divergence


def cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of logits (B, classes) and labels (B,), mean over the batch."""
    with _float32(logits):
        return functional.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)


def feature_loss(args, phi_z: Tensor, teacher: Tensor) -> Tensor:
    """`--feature_loss` between phi(z) and the teacher's features, (B, C, H, W) each."""
    with _float32(phi_z):
        return FEATURE_LOSSES[args.feature_loss](phi_z.float(), teacher, args)


def logit_loss(args, logits: Tensor, teacher: Tensor, y: Tensor | None = None) -> Tensor:
    """`--logit_loss` between the student's and the teacher's logits, (B, classes) each; y (B,) are labels, if known."""
    labels = (y,) if args.logit_loss in WITH_LABELS else ()
    with _float32(logits):
        return LOGIT_LOSSES[args.logit_loss](logits.float(), teacher, args, *labels)


def mixed(x: Tensor, teacher: Outputs, share: Tensor, temperature: float) -> tuple[Tensor, Outputs]:
    """Blends each image with the next one in its batch, and the teacher's probabilities in the same proportion.

    mixup, Zhang et al. 2018, https://arxiv.org/abs/1710.09412, with the teacher's outputs in place of labels.
    Softened probabilities are blended, so that the target of `kl` is exactly their blend.

    Args:
        x: (B, 3, S, S).
        share: (B,) in [0, 1], the weight of the image itself.
    """

    def blend(values: Tensor) -> Tensor:
        kept = share.view(-1, *[1] * (values.dim() - 1))
        return kept * values + (1 - kept) * values.roll(-1, 0)

    soft = blend((teacher.logits / temperature).softmax(1))
    features = None if teacher.features is None else blend(teacher.features)
    return blend(x), Outputs(features, temperature * soft.clamp_min(1e-30).log())


@contextmanager
def frozen(networks: nn.Module) -> Iterator[None]:
    """Within, gradients flow through `networks` to their inputs, not to their weights: D judges, it does not learn."""
    networks.requires_grad_(False)
    try:
        yield
    finally:
        networks.requires_grad_(True)


def _bce(logits: Tensor, label: int) -> Tensor:
    with _float32(logits):
        logits = logits.float()
        return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _float32(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
