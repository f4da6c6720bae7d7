"""What `--recipe` stands for: flags and their values, each of which can be overridden.

`fair` and `best`, for students: every label counts once, the teacher's included, with what then helps a tiny student
most; for the student alone, `best` is the baseline that distillation has to beat. The teacher of a round is trained on
that round's labels alone; no other label decides anything, so the last epoch's weights are kept. The student learns the
teacher's outputs for the whole pool, which needs no labels. The paper's setting is what the scripts do without this
flag.

`quick`, for teachers: trains one in little time; KD and EnCoDe train theirs with it. What it changes from the paper's
schedule of 100 epochs of SGD:

- `schedule`, `train_epochs`, `batch_size`, `lr_task`, `nesterov`: one cycle up to a high rate and down, over few
  epochs.
- `fold_bn`: batch norm after each convolution during training, then folded into it; He's initial weights; no
  dropout before the first linear layer (`folding`). What is saved is the plain network.
- `feature_rms`: folding leaves features at the scale that batch norm gives them; they are scaled to this root mean
  square, and the first linear layer by its inverse, so that the paper's `--feat_wt 500` makes the feature loss as
  large as a cross entropy. A teacher without it (`--feature_rms 0`, the paper's schedule, a checkpoint from elsewhere)
  has features of another scale, and the suitable feat_wt is proportional to 1 / their mean square.
- `shift`, `label_smoothing`, `weight_decay`: against overfitting.
"""

from collections.abc import Callable

from common.experiments import DISTILLED

# Students

COUNTED = {"keep": "last"}
SCHEDULE = {"schedule": "onecycle", "nesterov": True, "batch_size": 128}
TEACHER = {  # results/fair-exploration compares some of these with others, on validation images of one seed
    **{"teacher_labels": "labeled", "teacher_pool": "none"},
    **{"teacher_epochs": 12, "teacher_passes": 80},
    **{"teacher_batch_size": 32, "teacher_lr": 0.03},
}
STUDENT = {  # the pool's logits alone: no features, decoder or labelled batch are computed
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
    """The flags of `fair` or `best` for an experiment's student, and their values."""
    if method in DISTILLED:
        return COUNTED | SCHEDULE | TEACHER | STUDENTS[name]
    # for few labels: compared in results/alone, on validation images of one seed with 10%
    tuned = {"fold_bn": quick(model)["fold_bn"], "weight_decay": 5e-3}
    return COUNTED | SCHEDULE | ALONE | (tuned if name == "best" else {})


# Teachers

SHARED_SEED = 2023  # of the shared teacher
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
    """A second teacher starts from the first and learns its soft outputs for the pool, on harder views.

    Noisy student, Xie et al. 2020, https://arxiv.org/abs/1911.04252, trains the second from scratch; with the few
    epochs here, that still fell short of the first (results/fair-exploration).
    """
    return {**_harder(args), "lr_task": args.teacher_lr / 2, "ce_wt": 0.0, "logit_loss": "kl", "temperature": 1.0}


def fixmatch(args) -> dict:
    """One teacher learns its labels, and the pool from itself (`teachers.fixmatch`).

    FixMatch shows labelled images only in easy views; here they are shifted and cut out like the pool's.
    """
    return {**_harder(args), "ce_wt": 1.0, "logit_loss": "pseudo_label", "own_outputs": True}


def _harder(args) -> dict:
    """Training on the pool, with views that are shifted and cut out."""
    harder = {"distill_on": "pool", "cutout": args.image_size // 4, "shift": args.image_size // 8}
    lengths = {"train_epochs": args.teacher_pool_epochs, "label_smoothing": 0.0}
    flags = harder | lengths | {"feat_wt": 0.0, "logit_wt": 1.0, "views": 0, "mixup": 0.0, "targets": args.targets}
    # the views that are averaged are part of the teacher's identity, though it does not see them
    return flags | ({"mean_of": args.views, "mean_shift": args.shift} if args.targets == "mean" else {})


POOL: dict[str, Callable] = {
    "self_training": self_training,
    "fixmatch": fixmatch,
}  # --teacher_pool
TEACHERS = {"quick": quick}  # a recipe here is a function of the model, and its line
