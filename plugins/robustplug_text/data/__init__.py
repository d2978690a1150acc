"""Texts: as tensors, from files, and as a task."""
