"""The results folder: finished stages, locks, heartbeats, the columns of every table, export and import.

May import: `planning` and what it may. Imports no torch.
"""
