"""Figures as PNG and SVG, with a description in their metadata."""
