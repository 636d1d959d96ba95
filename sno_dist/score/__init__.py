"""Everything that answers s(u, x, t): networks, their preconditioning, and guidance."""
