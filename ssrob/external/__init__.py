"""Evaluating somebody else's PyTorch model, without a study: `ssrob.external.run.evaluate`."""
