"""What a person reads: tables, figures and pages."""
