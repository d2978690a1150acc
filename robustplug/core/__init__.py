"""What a training step consists of: batches and views, slots, methods, state and random numbers."""
