"""Training on all labels at once: AlexNet or its compressed student on SVHN.

    python main.py --expt single
    python main.py --expt teacher --network teacher --recipe quick

Table I, 100% of the labels: row CM with `--network student`, row Baseline with `--network teacher`. The teacher is also
saved where KD and EnCoDe look for it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository root, whatever the working directory

from common import budget, cli, data, evaluation, networks, plan, runs, teachers, training

DEFAULTS = {
    "model": "AlexNet",
    "method": "Single",
    "dataset": "svhn",
    "train_epochs": 100,
    "batch_size": 128,
    "num_images": 50000,
    "num_val": 5000,
    "lr_task": 0.01,
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
