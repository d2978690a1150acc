"""Studies, many runs of one recipe: the remaining work, and the processes that do it."""
