"""What `--recipe` stands for: flags and their values, each of which may still be given.

`fair` and `best`, of students: every label is counted once, teacher included, and what then helps a tiny student most;
for the student alone `best` is the baseline that distillation has to beat.
A teacher for each round is trained on that round's labels alone; no label but these decides anything, so the last
epoch's weights are kept. The student learns the teacher's outputs for the whole pool, which needs no label. The paper's
setting is what the scripts do without this flag.

`quick`, of teachers: how one is trained when there is little time, and what KD and EnCoDe train theirs with. Each value
says what it changes against the paper's schedule of 100 epochs of SGD:

- `schedule`, `train_epochs`, `batch_size`, `lr_task`, `nesterov`: one cycle up to a high rate and down, in few epochs.
- `fold_bn`: batch norm behind each convolution while training, folded into the convolution afterwards, He's initial
  weights, no dropout before the first linear layer (`folding`). What is saved is the plain network.
- `feature_rms`: folding leaves features of the size batch norm gives them; they are scaled to this root mean square,
  and the first linear layer by its inverse, so that the paper's `--feat_wt 500` makes the feature loss as large as a
  cross entropy. A teacher without it (`--feature_rms 0`, the paper's schedule, a checkpoint from elsewhere) has
  features of another size, and the fitting feat_wt goes with 1 / their mean square.
- `shift`, `label_smoothing`, `weight_decay`: against overfitting.
"""

from collections.abc import Callable

from common.experiments import DISTILLED

# Students

COUNTED = {"keep": "last"}
SCHEDULE = {"schedule": "onecycle", "nesterov": True, "batch_size": 128}
TEACHER = {  # results/fair-exploration has what some of these were compared with, on validation images of one seed
    **{"teacher_labels": "labeled", "teacher_pool": "none"},
    **{"teacher_epochs": 12, "teacher_passes": 80},
    **{"teacher_batch_size": 32, "teacher_lr": 0.03},
}
STUDENT = {  # the logits of the pool alone: neither features nor decoder nor the labelled batch are computed
    **{"distill_on": "pool", "logit_loss": "kl", "logit_wt": 1.0, "temperature": 1.0, "ce_wt": 0.0, "feat_wt": 0.0},
    **{"views": 4, "targets": "mean", "shift": 4, "train_epochs": 60, "lr_task": 0.04},
}
LONGER = {  # a better teacher by self-training, whose outputs are softer, and a student of twice the epochs
    **{"teacher_pool": "self_training", "teacher_pool_epochs": 8},
    **{"temperature": 0.8, "logit_wt": 2.0, "train_epochs": 120},
}
STUDENTS = {"fair": STUDENT, "best": STUDENT | LONGER}  # a recipe is its line
ALONE = {"train_epochs": 24, "lr_task": 0.04, "shift": 4}  # without a teacher


def student(name: str, method: str, model: str) -> dict:
    """Flags and their values of `fair` or `best` for an experiment's student."""
    if method in DISTILLED:
        return COUNTED | SCHEDULE | TEACHER | STUDENTS[name]
    # for few labels: results/alone has what was compared, on validation images of one seed with 10%
    tuned = {"fold_bn": quick(model)["fold_bn"], "weight_decay": 5e-3}
    return COUNTED | SCHEDULE | ALONE | (tuned if name == "best" else {})


# Teachers

SHARED_SEED = 2023  # of the teacher for all runs
ONE_CYCLE = {"schedule": "onecycle", "nesterov": True, "weight_decay": 5e-4, "label_smoothing": 0.05}
QUICK = {
    # 81.31% test accuracy on CIFAR-10 in 32 minutes on two float32 cores (n=1)
    "AlexNet": {"train_epochs": 11, "batch_size": 256, "lr_task": 0.1, "shift": 6, "fold_bn": True},
    # 72.40% on CIFAR-10 (n=1) in two long epochs on two float32 cores: more of them where there is a GPU
    "VGG": {"train_epochs": 2, "batch_size": 64, "lr_task": 0.04, "shift": 4, "fold_bn": True},
    # it keeps its batch norm
    "ResNet": {"train_epochs": 10, "batch_size": 128, "lr_task": 0.1, "shift": 3, "fold_bn": False},
}
UNTRIED = {"train_epochs": 10, "batch_size": 128, "lr_task": 0.05, "shift": 2, "fold_bn": False}  # a pair not in QUICK


def quick(model: str) -> dict:
    """A pair's quick recipe for its teacher, as flags and their values."""
    return {**ONE_CYCLE, "feature_rms": 0.1, **QUICK.get(model, UNTRIED)}


def self_training(args) -> dict:
    """A second teacher goes on from the first and learns the pool from it: its soft outputs, from harder views.

    Noisy student, Xie et al. 2020, https://arxiv.org/abs/1911.04252, which starts anew; with the few epochs that there
    are here, one that does was still behind the first (results/fair-exploration).
    """
    return {**_harder(args), "lr_task": args.teacher_lr / 2, "ce_wt": 0.0, "logit_loss": "kl", "temperature": 1.0}


def fixmatch(args) -> dict:
    """One teacher learns its labels, and the pool from itself (`teachers.fixmatch`).

    FixMatch shows labelled images in easy views alone; here they are moved and cut out as the pool's are.
    """
    return {**_harder(args), "ce_wt": 1.0, "logit_loss": "pseudo_label", "own_outputs": True}


def _harder(args) -> dict:
    """On the pool, from views that are moved and cut out."""
    harder = {"distill_on": "pool", "cutout": args.image_size // 4, "shift": args.image_size // 8}
    lengths = {"train_epochs": args.teacher_pool_epochs, "label_smoothing": 0.0}
    flags = harder | lengths | {"feat_wt": 0.0, "logit_wt": 1.0, "views": 0, "mixup": 0.0, "targets": args.targets}
    # the views that the means are of are part of what the teacher is, though it does not see them
    return flags | ({"mean_of": args.views, "mean_shift": args.shift} if args.targets == "mean" else {})


POOL: dict[str, Callable] = {
    "self_training": self_training,
    "fixmatch": fixmatch,
}  # --teacher_pool
TEACHERS = {"quick": quick}  # a recipe is a function of the model here, and its line
