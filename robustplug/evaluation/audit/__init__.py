"""Whether robustness is real, or gradients are masked."""
