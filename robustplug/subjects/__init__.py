"""Any model and its data, opened and ready to be evaluated."""
