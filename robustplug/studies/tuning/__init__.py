"""Tuning, the search of a method's options for the best point between clean and robust accuracy."""
