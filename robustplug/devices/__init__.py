"""What runs where: processes, precision and signals."""
