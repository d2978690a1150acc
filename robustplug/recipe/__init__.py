"""Read TOML files into typed, checked and resolved options."""
