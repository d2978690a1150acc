"""Declare components, find plugins, load and build what they offer."""
