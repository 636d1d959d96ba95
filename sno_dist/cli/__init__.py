"""The command line: one command per stage, `run` for all five, and `config`, `inspect`, `doctor`.

Importing it imports no torch; a command that needs torch imports it when it runs.
"""
