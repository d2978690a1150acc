"""Attacks on translation models."""
