"""Does an image prefer what is true of it to what is false?

Shapes: I items, T true captions of an item, F false ones. An item with fewer true captions than T is filled up with
+inf, with fewer false ones than F with -inf: both are never the score that decides.
"""

from __future__ import annotations

from math import comb

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from sparc_bench.metrics.pair_comparison import Ties


def caption_choice(
    true_IT: Float[ndarray, "I T"], false_IF: Float[ndarray, "I F"], ties: Ties
) -> tuple[Float[ndarray, "I"], Bool[ndarray, "I"]]:
    """Credit of 0 to 1 for every item, and whether a tie decided it.

    An item is right where every true caption scores above every false one: with one of each SugarCrepe's accuracy
    (Hsieh et al. 2023, strict greater-than) and VALSE's acc_r (Parcalabescu et al. 2022), with four false
    ones ARO's precision at 1, with two true ones the image-to-text task of SugarCrepe++ (Dumpala et al. 2024). A tie is
    where the lowest true score equals the highest false one. Under "lose" it is an error; under "expected" the a true
    and b false captions at that score stand in a random order, and the credit is 1 / (a + b choose a): 1/2 for one
    against one, 1/5 for one against four, 1/3 for two against one. A score that is not a number loses.
    """
    lowest_I, highest_I = true_IT.min(axis=1), false_IF.max(axis=1)
    tied_I = lowest_I == highest_I
    credit_I = (lowest_I > highest_I).astype(np.float64)
    if ties == "expected":
        among_true_I = (true_IT == lowest_I[:, None]).sum(axis=1)
        among_false_I = (false_IF == highest_I[:, None]).sum(axis=1)
        for item in np.flatnonzero(tied_I):
            among = int(among_true_I[item]), int(among_false_I[item])
            credit_I[item] = 1 / comb(sum(among), among[0])
    return credit_I, np.asarray(tied_I)
