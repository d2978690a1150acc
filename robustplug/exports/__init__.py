"""Export the model of a run for other programs, check the file, and describe it in a model card."""
