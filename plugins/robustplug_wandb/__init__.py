"""Log runs to Weights & Biases: `--observe wandb`."""

from __future__ import annotations

from robustplug.api import observer_on_request

robustplug_run_start, robustplug_epoch_end, robustplug_run_end = observer_on_request(
    "wandb", "robustplug_wandb.log"
)
