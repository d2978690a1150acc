"""Audit models for gradient masking."""
