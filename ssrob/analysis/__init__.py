"""From a study's stages to tables, and from tables to effects, intervals and verdicts on the claims C2 to C5b.

- `collect`: all stages of a study as tidy tables.

- `sweeps`: one model's accuracies over eps, by cell (way of training) and seed; the only part that reads tables.
- `contrasts`: what is compared per seed: differences, the distance from AT's own frontier, the slope in the weight.
- `statistics`: effect, interval and p value of a contrast.
- `claims`: which contrasts a claim needs, and which controls.
- `verdicts`: supported, contradicted or inconclusive, from one table of rules.
- `simulate`: sweeps with a known truth, to count false support and power.
"""

from ssrob.analysis.findings import findings, judged_claim
from ssrob.analysis.sweeps import Cell, Sweeps, from_tables

__all__ = ["Cell", "Sweeps", "findings", "from_tables", "judged_claim"]
