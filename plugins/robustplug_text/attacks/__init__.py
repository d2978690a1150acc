"""Word substitution: the threat model, and the search."""
