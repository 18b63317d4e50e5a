"""Accuracy of preferring the true captions of an image to the false ones (SugarCrepe, SugarCrepe++, VALSE, ARO).

Shapes: I items, T true captions of an item, F false ones. Missing true captions are padded with +inf, missing false
ones with -inf, which never decide.
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
    """Credit of every item (0 to 1), and whether a tie decided it.

    An item is right if every true caption scores above every false one. With one of each this is SugarCrepe's accuracy
    (Hsieh et al. 2023, strict greater-than) and VALSE's acc_r (Parcalabescu et al. 2022), with four false ones ARO's
    precision at 1, with two true ones the image-to-text task of SugarCrepe++ (Dumpala et al. 2024). A tie is an item
    whose lowest true score equals its highest false one: an error under "lose", right under "win" (the argmax of ARO's
    order tasks, where the true caption stands first); under "expected" the credit is the mean over random orders of the
    a true and b false captions at that score, 1 / (a + b choose a): 1/2 for one against one, 1/5 for one against four,
    1/3 for two against one. NaN scores lose.
    """
    lowest_I, highest_I = true_IT.min(axis=1), false_IF.max(axis=1)
    tied_I = lowest_I == highest_I
    credit_I = (lowest_I > highest_I).astype(np.float64)
    if ties == "win":
        credit_I[tied_I] = 1.0
    if ties == "expected":
        among_true_I = (true_IT == lowest_I[:, None]).sum(axis=1)
        among_false_I = (false_IF == highest_I[:, None]).sum(axis=1)
        for item in np.flatnonzero(tied_I):
            among = int(among_true_I[item]), int(among_false_I[item])
            credit_I[item] = 1 / comb(sum(among), among[0])
    return credit_I, np.asarray(tied_I)
