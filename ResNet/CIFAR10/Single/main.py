"""Training on all labels at once: ResNet-18 or ResNet-8 on CIFAR-10.

    python main.py --expt single
    python main.py --expt teacher --network teacher --recipe quick

Not in Table I: this project added the ResNet pair; common/README.md says how its hyperparameters were chosen. The
teacher is also saved where KD and EnCoDe look for it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository root, whatever the working directory

from common import budget, cli, data, evaluation, networks, plan, runs, teachers, training

DEFAULTS = {
    "model": "ResNet",
    "method": "Single",
    "train_epochs": 120,
    "batch_size": 128,
    "num_images": 50000,
    "num_val": 5000,
    "lr_task": 0.1,
    "seed": 2023,
}


def main(args) -> None:
    images = data.load(args)
    if args.dry_run:
        return plan.show(args, images)
    run = runs.begin(args, images)
    for this_round in budget.rounds(args, run, images):
        net = networks.build(args, args.network)
        fitted = training.fit(args, run, this_round, net)
        evaluation.record(args, run, this_round, net, fitted)
    if args.network == "teacher":
        teachers.publish_run(args, run, images)  # where KD and EnCoDe look for it


if __name__ == "__main__":
    cli.start(main, __doc__, DEFAULTS)
