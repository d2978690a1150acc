"""Attacks on a model, and what became of each sample."""
