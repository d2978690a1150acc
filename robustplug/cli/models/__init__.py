"""Commands about a model: what its training takes, and its export."""
