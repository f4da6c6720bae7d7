"""Labels added at random, VGG11's features and logits distilled into its compressed student, on SVHN.

    python main.py --expt kd

Table I: row CM+KD. If there is no teacher yet, it is trained first; `Single --network teacher` trains only the teacher.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository root, whatever the working directory

from common import budget, cli, data, evaluation, networks, plan, runs, samplers, teachers, training

DEFAULTS = {
    "model": "VGG",
    "method": "KD",
    "dataset": "svhn",
    "train_epochs": 120,
    "batch_size": 128,
    "num_images": 50000,
    "num_val": 5000,
    "initial_budget": 5000,
    "budget": 5000,
    "subset": 10000,
    "sampler": "random",
    "lr_task": 0.01,
    "lr_dec": 0.01,
    "feat_wt": 500,
    "logit_wt": 0.00005,
    "seed": 2023,
}


def main(args) -> None:
    images = data.load(args)
    if args.dry_run:
        return plan.show(args, images)
    run = runs.begin(args, images)
    teacher = teachers.Teacher(args, run, images)
    for this_round in budget.rounds(args, run, images):
        targets = teacher.targets(this_round)
        student = networks.build(args, "student", this_round.number)
        decoder = networks.build(args, "decoder", this_round.number)
        # minimizes objective.task_loss
        fitted = training.fit(args, run, this_round, student, decoder, targets)
        evaluation.record(args, run, this_round, student, fitted, targets)
        this_round.query(samplers.build(args, this_round, student, targets))


if __name__ == "__main__":
    cli.start(main, __doc__, DEFAULTS)
