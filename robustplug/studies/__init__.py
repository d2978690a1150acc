"""Many runs of one recipe: what is to be done, and who does it."""
