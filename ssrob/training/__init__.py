"""Pre-training and fine-tuning: one loop (`fit`), one step (`train_step`), and the stage that runs them (`train`).

A step is read in this order: `train_step` samples a batch and computes gradients, `perturbations` runs the attacks,
`losses.batch` says what each loss is given, `models.feature_cache` sends images through the network once.
May import: `runtime`, `attacks`, `losses`, `models`, `data` and what they may.
"""
