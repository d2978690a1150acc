"""Launchers, which carry out the jobs of a study somewhere, and the files that jobs are exchanged by."""
