"""Which module causes an error: modules compared on the same inputs, and restored one group after another."""
