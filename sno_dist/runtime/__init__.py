"""Where and how the stages run: ranks, collectives, random streams, artifacts, tracking, signals.

Knows nothing of score models. `torch.distributed` is called in `collectives` alone and an
`Accelerator` is built in `accelerator` alone.
"""
