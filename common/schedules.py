"""The learning rate over the updates of a round."""

import torch


def of(args, optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LRScheduler:
    """`step`: the rate times 0.1 every `step_size` epochs (paper: 80). `onecycle`: up to lr in a quarter, then down.

    Stepped once an update; onecycle is Smith & Topin 2017, https://arxiv.org/abs/1708.07120.
    """
    if args.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, args.step_size * updates, gamma=0.1)
    total = args.train_epochs * updates + 1
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=max(0.25, 2 / total),  # up takes one update or more: it divides by their number
        div_factor=10,
        final_div_factor=100,
        cycle_momentum=False,
    )
