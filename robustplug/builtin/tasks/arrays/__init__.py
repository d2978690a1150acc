"""Images and tables in files of arrays."""
