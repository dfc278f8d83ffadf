"""A network in parts: how each is built for its target, and whether they fit together."""
