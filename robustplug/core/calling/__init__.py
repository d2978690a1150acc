"""Calls of any model: inputs are spared, gradients are numbers, outputs are logits, samples are apart."""
