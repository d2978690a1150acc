"""What a run leaves in its folder: recipe, checkpoints, environment and results."""
