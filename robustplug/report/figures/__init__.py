"""Figures as PNG and SVG that describe themselves."""
