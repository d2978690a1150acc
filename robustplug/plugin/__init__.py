"""Declare components, find plugins, and load and build the components that they offer."""
