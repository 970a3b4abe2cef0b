"""Networks: normalisation, a backbone and named heads; how they are initialised, saved and loaded."""
