"""All rows of the table of injected faults, in the order in which docs/trust.md lists them."""

import trust_caches
import trust_layers
import trust_middle
import trust_outputs
import trust_patches
import trust_steps
import trust_stored
import trust_unharmed
import trust_weights
import trust_work
from trust_bench import Fault

FAULTS: list[Fault] = [
    *trust_unharmed.FAULTS,
    *trust_layers.FAULTS,
    *trust_caches.FAULTS,
    *trust_work.FAULTS,
    *trust_patches.FAULTS,
    *trust_steps.FAULTS,
    *trust_middle.FAULTS,
    *trust_weights.FAULTS,
    *trust_outputs.FAULTS,
    *trust_stored.FAULTS,
]
