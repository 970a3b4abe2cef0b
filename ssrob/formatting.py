"""How numbers are written for people, the same everywhere."""


def duration(seconds: float) -> str:
    """Write a time with two units: 42 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    whole = round(seconds)
    for unit, size, below, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {below}"
    return f"{whole} s"
