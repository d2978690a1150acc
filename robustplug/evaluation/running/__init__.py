"""A row of an evaluation while it runs, and what its batches hold."""
