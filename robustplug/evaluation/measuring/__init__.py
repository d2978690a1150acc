"""Rows of an evaluation that measure or certify, and the bounds from both sides."""
