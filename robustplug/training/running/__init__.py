"""Run the updates of the training loop: one by one, compiled, or captured and replayed."""
