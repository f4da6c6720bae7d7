"""The learning rate over the updates of a round."""

import torch


def of(args, optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LRScheduler:
    """`step`: times 0.1 every `step_size` epochs (paper: 80). `onecycle`: up to lr over the first quarter, then down.

    Stepped once per update; onecycle is Smith & Topin 2017, https://arxiv.org/abs/1708.07120.
    """
    if args.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, args.step_size * updates, gamma=0.1)
    total = args.train_epochs * updates + 1
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=max(0.25, 2 / total),  # at least one update up: it divides by their number
        div_factor=10,
        final_div_factor=100,
        cycle_momentum=False,
    )
