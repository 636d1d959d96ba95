"""Smooth invertible maps y = phi(x), with every derivative that a change of variables needs."""
