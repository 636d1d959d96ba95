"""Layers that both the embeddings and the score networks are built from."""
