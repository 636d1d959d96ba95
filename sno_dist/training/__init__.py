"""Stage 3: the joint training of autoencoder, embedder and score network, data parallel.

Leaves: the `Checkpoint`. Upstream: the shards and the embedding table.
"""
