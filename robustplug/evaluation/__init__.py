"""Attacks on a model, and their outcome for each sample."""
