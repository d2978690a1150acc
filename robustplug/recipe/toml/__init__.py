"""TOML files of recipes, suites and studies: where to find them, their lines, and overrides."""
