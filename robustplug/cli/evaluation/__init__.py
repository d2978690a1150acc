"""Commands that evaluate a model: evaluate, attack and audit."""
