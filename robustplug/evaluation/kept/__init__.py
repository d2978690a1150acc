"""What an evaluation keeps on disk, so that a killed one goes on where it was."""
