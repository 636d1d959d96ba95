"""Stage 4: samples of seen and unseen distributions, from context sets of several sizes.

Leaves: the `SampleSet`. Upstream: the shards and a checkpoint.
"""
