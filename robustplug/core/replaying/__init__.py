"""Run the iterations of attacks by replaying graphs, and find what a replay would not repeat."""
