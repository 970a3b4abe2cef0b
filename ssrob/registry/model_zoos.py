"""Packages whose models are evaluated by name, as ``timm:NAME``: one row each. Imports none of them."""

ZOOS: dict[str, str] = {
    "torchvision": "ssrob.external.zoos:torchvision_model",
    "timm": "ssrob.external.zoos:timm_model",
    "robustbench": "ssrob.external.zoos:robustbench_model",
}
"""Package -> ``function(name, asked, **arguments) -> nn.Module``: the user's arguments, and what else is known."""
