"""All labels at once: CIFAR-10, VGG11 or its compressed student.

    python main.py --expt single
    python main.py --expt teacher --network teacher --train_epochs 3 --batch_size 128 --lr_task 0.05 \\
        --schedule onecycle --nesterov --fold_bn --shift 4 --label_smoothing 0.05

Table I, 100%: row CM with `--network student`, row Baseline with `--network teacher`. The teacher is also put where
KD and EnCoDe look for theirs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository's root, from wherever this is run

from common import budget, cli, data, networks, plan, runs, teachers, training

DEFAULTS = {
    "model": "VGG",
    "method": "Single",
    "train_epochs": 120,
    "batch_size": 128,
    "num_images": 50000,
    "num_val": 5000,
    "lr_task": 0.01,
    "seed": 2024,
}


def main(argv: list[str] | None = None) -> None:
    args = cli.parse(__doc__, DEFAULTS, argv)
    images = data.load(args)
    if args.dry_run:
        return plan.show(args, images)
    run = runs.begin(args, images)
    for round in budget.rounds(args, run, images):
        net = networks.build(args, args.network)
        training.fit(args, round, net)
        accuracy = round.record(net, args.network)
        if args.network == "teacher":
            teachers.publish(args, images, run, net, accuracy)


if __name__ == "__main__":
    cli.start(main)
