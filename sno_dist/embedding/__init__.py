"""From a context set to u: the mean of a feature map, then a read-out.

Leaves: the `EmbeddingTable`. Upstream: the shards. Never imports `model`.
"""
