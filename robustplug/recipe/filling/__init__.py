"""What a recipe leaves out, and its run or its task knows."""
