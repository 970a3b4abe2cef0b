"""From a study's stages to tables, and from tables to effects, intervals and verdicts on the claims.

- `collect`: all stages of a study as tidy tables.
- `sweeps`: one model's accuracies over eps, by cell (settings of an arm) and seed; the only part that reads tables.
- `contrasts`: what is compared per seed: differences, the distance from AT's own frontier, the slope in the weight.
- `statistics`: effect, interval and p value of a contrast; `standard_error`: what seeds and images have in it;
  `moderation`: the spread over seeds of all of them.
- `claims`: what a claim, a row of the config, rests on; `controls`: what else could explain a difference.
- `evidence`: the comparisons of a claim, corrected for their number.
- `verdicts`: supported, contradicted, inconclusive or underpowered, from one table of rules.
- `looks`: verdicts at planned numbers of seeds. `findings`: the table of all of it. `power`: how large a study must be.
"""

from ssrob.analysis.findings import findings
from ssrob.analysis.looks import judged_claim
from ssrob.analysis.sweeps import Cell, Sweeps, from_tables

__all__ = ["Cell", "Sweeps", "findings", "from_tables", "judged_claim"]
