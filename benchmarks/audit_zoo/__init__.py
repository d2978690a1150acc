"""A zoo of honest and of masked models, on which the audit is calibrated; see `__main__`."""
