"""Evaluate and audit a model as the Python API is asked to, wholly or in a part."""
