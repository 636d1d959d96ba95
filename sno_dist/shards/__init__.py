"""Samples of many distributions as WebDataset tars: made from a source, planned, and read.

Leaves: the shards and their `Manifest`. Upstream: a source.
"""
