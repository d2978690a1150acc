"""Attacks on negotiating agents."""
