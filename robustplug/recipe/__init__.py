"""TOML files, read into typed, checked and resolved options."""
