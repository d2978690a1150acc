"""Guards: what is handed to code that is not the engine's comes back as it was, or is put back."""
