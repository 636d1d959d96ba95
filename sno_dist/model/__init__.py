"""The one module that training wraps: embedder, autoencoder, score and schedule, and its factory."""
