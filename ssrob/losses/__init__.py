"""Training losses under one contract: ``loss(model, x, batch) -> (B,)``. Their names and costs stand in the catalog."""
