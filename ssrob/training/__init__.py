"""The one training loop, for pre-training and fine-tuning alike.

May import: `runtime`, `attacks`, `losses`, `models`, `data` and what they may.
"""
