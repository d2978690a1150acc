"""Output for readers: tables, figures and pages."""
