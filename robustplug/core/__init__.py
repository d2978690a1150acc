"""What flows through a step: types, slots, methods, state and randomness."""
