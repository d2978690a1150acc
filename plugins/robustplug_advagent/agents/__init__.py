"""Agents that negotiate: how they speak, decide and learn."""
