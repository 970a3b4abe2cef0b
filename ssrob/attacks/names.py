"""Names that configs and the command line may use; kept apart to be importable without torch."""

NORMS = ("linf", "l2")
REFERENCE = "autoattack"  # the preset that is run by AutoAttack's own code
PRESET_NAMES = ("fast", "standard", "strong", REFERENCE)

ATTACK_KINDS = ("pgd", "apgd", "fmn", "square")
ADDED_ATTACKS: dict[str, str] = {}  # by plugins: kind -> "module:function" of (geometry, config), giving a Stepper
UNTARGETED_LOSSES = ("cross_entropy", "margin", "dlr")
TARGETED_LOSSES = ("targeted_margin", "targeted_dlr")
STARTS = ("random", "warm", "clean")
GRADIENT_DTYPES = ("float32", "bfloat16")
LAYOUTS = ("channels_last", "model")
