"""`--recipe fair` and `best`: every label counted once, teacher included, and what then helps a tiny student most.

The setting: a teacher for each round, trained on that round's labels alone; no label but these decides anything, so the
last epoch's weights are kept. The student learns the teacher's outputs for the whole pool, which needs no label. The
paper's setting stays what the scripts do without this flag.
"""

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
ALONE = {"train_epochs": 24, "lr_task": 0.04, "shift": 4}  # without a teacher
RECIPES = {"fair": STUDENT, "best": STUDENT | LONGER}  # a recipe is its line


def recipe(name: str, method: str) -> dict:
    """Flags and their values for an experiment's student."""
    return COUNTED | SCHEDULE | (TEACHER | RECIPES[name] if method in ("KD", "EnCoDe") else ALONE)
