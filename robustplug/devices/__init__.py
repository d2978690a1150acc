"""Devices: processes, numerical precision, graphs and signals."""
