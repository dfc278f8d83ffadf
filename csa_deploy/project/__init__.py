"""A small project that deploys at once: network, weights, data with its card, configuration, policy and CI."""
