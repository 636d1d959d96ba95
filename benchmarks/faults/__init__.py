"""Faults injected into real commands, and what became of each: `python -m benchmarks.faults`.

A fault is a signal, a damaged file, a full disk, a server that misbehaves, or another run in the
same folder. It hits a small run of one stage, as a plain process or on two ranks under `accelerate
launch`, at a random moment. Then what was broken is mended, the same command is given again, and
what it leaves must be, byte for byte, what a run left that nobody disturbed. On the way the
disturbed command may have ended in one line that says what failed and where, or not at all; a
traceback, a second line, other bytes, a damaged artifact and a hang count as wrong.
"""
