"""Files: read within limits, parsed into types, written as a whole, and sealed."""
