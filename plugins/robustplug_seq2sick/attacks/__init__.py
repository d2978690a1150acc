"""Attacks on models that translate."""
