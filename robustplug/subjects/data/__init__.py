"""Data that you bring: arrays, data sets, loaders and streams, as a task."""
