"""Out-of-distribution detection: scores of a model's outputs, how well they separate, and images of other kinds."""
