"""Train a method in a run folder."""
