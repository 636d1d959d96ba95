"""How ranks share the weights, gradients and optimizer state of one operator."""
