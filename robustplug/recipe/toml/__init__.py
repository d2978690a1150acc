"""The text of recipes, suites and studies: where it is found, its lines, and overrides."""
