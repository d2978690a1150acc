"""Commands about the model of a run: export."""
