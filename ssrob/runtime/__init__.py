"""Running one stage, in this process or another: lock, device, log, signals, checkpoints, messages when it fails.

May import: `scheduling`, `hardware`, `storage` and what they may.
"""
