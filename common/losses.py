"""Distillation losses by name. Adding one is a function here and its line in a registry; its flag offers it then.

A loss takes the student's and the teacher's tensors and the run's flags, and returns a scalar. `objective` hands it
float32 tensors, whatever the autocast.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from common import fast

Tensor = torch.Tensor


def mse(student: Tensor, teacher: Tensor, args) -> Tensor:
    """Mean squared error over two tensors of one shape: the paper's, for features and for logits."""
    return fast.mse_loss(student, teacher, args.fast)


def kl(student: Tensor, teacher: Tensor, args) -> Tensor:
    """KL(teacher || student) of logits (B, classes) softened by `--temperature` T, times T^2, mean over the batch.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531; the factor T^2 is that of its section 2.
    """
    soft_student = F.log_softmax(student / args.temperature, dim=1)
    soft_teacher = F.log_softmax(teacher / args.temperature, dim=1)
    return F.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True) * args.temperature**2


def pseudo_label(student: Tensor, teacher: Tensor, args) -> Tensor:
    """Cross entropy with the teacher's class where its probability is at least 0.95, over all of the batch.

    FixMatch, Sohn et al. 2020, https://arxiv.org/abs/2001.07685, equation 4; logits (B, classes) each.
    """
    confidence, label = teacher.softmax(1).max(1)
    return (F.cross_entropy(student, label, reduction="none") * (confidence >= 0.95)).mean()


FEATURE_LOSSES: dict[str, Callable] = {"mse": mse}  # --feature_loss: phi(z) and T_features, (B, C, H, W)
LOGIT_LOSSES: dict[str, Callable] = {
    "mse": mse,
    "kl": kl,
    "pseudo_label": pseudo_label,
}  # --logit_loss: C(z) and T_logits, (B, classes)
