"""What the files of a run hold: the columns of its tables, and the flags whose values tell the report's rows apart.

One list of each, for runs, records and the report.
"""

# flag -> the values not mentioned in the report's row names. A new choice of one of these flags (a query
# strategy, a loss) is a row of its own without any further edit.
VARIANTS = {
    "sampler": ("random", "vae"),
    "sampler_input": ("features",),
    "query_by": ("student",),
    "distill_on": ("labeled",),
    "feature_loss": ("mse",),
    "logit_loss": ("mse",),
    "teacher_labels": ("all",),
    "teacher_start": ("anew",),
    "teacher_pool": ("none",),
    "ce_wt": ("1.0",),
    "views": ("0",),
    "targets": ("view",),
    "mixup": ("0.0",),
    "keep": ("best",),
}

# The terms of the task loss and of the samplers, weighted: means over an epoch, blank if there is none.
LOSSES = ("ce", "feat", "logit", "adv", "vae", "disc")

TABLES = {
    "results": [
        *("model", "dataset", "method", "network"),
        *VARIANTS,
        *("teacher_accuracy", "agreement", "seed", "round", "labeled", "labels_in_all", "percent"),
        *("epochs", "updates", "best_epoch"),
        *("val_accuracy", "test_accuracy"),
    ],
    "queries": ["round", "index", "score", "label"],
    "history": ["round", "epoch", "loss", *LOSSES, "val_accuracy"],
    "timing": [
        *("round", "train_seconds", "images_per_second", "query_seconds", "peak_memory_mb", "peak_gpu_memory_mb"),
        *("device", "threads", "changed"),  # changed: what differs from the machine and code the run began with
    ],
}

# Flags added later: what earlier runs did. A config.json that lacks the flag counts as this value.
BEFORE = {
    "query_by": "student",
    **{"ce_wt": 1.0, "feature_loss": "mse", "feature_rms": 0.1, "teacher_feature_rms": 0.1},
    **{"keep": "best", "ema_decay": 0.999, "cutout": 0, "val_labels": "extra"},
    **{"shift": 0, "views": 0, "targets": "view", "mixup": 0.0, "fold_bn": False},
    **{
        "teacher_start": "anew",
        "teacher_more_epochs": 4,
        "teacher_passes": 0.0,
        "teacher_weight_decay": 0.0005,
        "teacher_pool": "none",
        "teacher_pool_epochs": 4,
    },
}

# export.csv, which `common.export` writes and the report reads: a row each for float32 student, int8 student, teacher.
EXPORT = [
    *("model", "dataset", "method", "seed", "round", "percent"),  # as in results.csv: which network it is
    *("network", "precision", "file", "file_bytes", "parameters", "macs", "peak_activation_bytes"),
    *("accuracy", "agreement", "largest_logit_difference"),  # agreement: test images of torch's class, in percent
    *("latency_ms", "latency_ms_p95", "repeats", "threads", "cpu", "busy", "onnxruntime"),
]
