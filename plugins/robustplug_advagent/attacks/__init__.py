"""Attacks on agents that negotiate."""
