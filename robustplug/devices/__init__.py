"""Devices: processes, numerical precision and signals."""
