"""Learning-rate schedules: one row each, name -> ``"module:function"``. Imports no torch.

``schedule(progress, training) -> factor``: what the peak rate `lr` is multiplied by, 0..1, at the optimiser step that
completes a share 0 < progress <= 1 of all. `training` is the config's section (`Training` in config/training.py).
"""

SCHEDULES: dict[str, str] = {
    "onecycle": "ssrob.training.lr_schedule:onecycle",
    "piecewise": "ssrob.training.lr_schedule:piecewise",
}
