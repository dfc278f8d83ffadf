"""What is inside a graph or an engine, and how two of them differ."""
