"""From a study to its stages and arms: pure functions, nothing is read or written.

May import: `config`, `registry`. Imports no torch.
"""
