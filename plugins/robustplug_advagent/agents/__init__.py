"""Negotiating agents: how they speak, decide and learn."""
