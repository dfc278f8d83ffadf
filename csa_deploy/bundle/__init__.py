"""One file that hands over an engine or a graph with everything that proves it."""
