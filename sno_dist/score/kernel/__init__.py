"""The Wasserstein-proximal kernel model: mixtures of Gaussians, fitted to many sets at once."""
