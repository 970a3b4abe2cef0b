"""A module per attack: a frozen setting that turns loss and gradient into the next point."""
