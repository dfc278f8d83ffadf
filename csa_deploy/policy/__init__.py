"""A project's acceptance policy, held against what a bundle or a workspace shows."""
