"""Pattern families: which connections a layer has, drawn before training and never changed.

On the shelf stand the families that need sizes, a density and a seed. Those that need to know more
are modules: `local.over` (the layout of the input) and `data_aware.over` (training inputs) give a
family, `butterfly` gives two layers, `periodic_kernel` the supports of a convolution's kernels;
`CHOSEN` holds the families whose connections can be chosen by what those of a trained dense layer
are worth. `density` divides one budget among the layers of a net, `score` judges patterns without
data.
"""

from collections.abc import Callable

from presplit.core.protocols import Family
from presplit.core.shelf import Shelf
from presplit.patterns import chosen
from presplit.patterns.bernoulli import bernoulli
from presplit.patterns.bernoulli import legal_densities as bernoulli_densities
from presplit.patterns.biregular import biregular
from presplit.patterns.biregular import legal_densities as biregular_densities
from presplit.patterns.block import block
from presplit.patterns.block import legal_densities as block_densities
from presplit.patterns.clash_free import clash_free
from presplit.patterns.clash_free import legal_densities as clash_free_densities
from presplit.patterns.diagonal import diagonal
from presplit.patterns.diagonal import legal_densities as diagonal_densities
from presplit.patterns.expander import expander
from presplit.patterns.expander import legal_densities as expander_densities
from presplit.patterns.grouped import grouped
from presplit.patterns.grouped import legal_densities as grouped_densities
from presplit.patterns.n_of_m import legal_densities as n_of_m_densities
from presplit.patterns.n_of_m import n_of_m
from presplit.patterns.radix import legal_densities as radix_densities
from presplit.patterns.radix import radix
from presplit.patterns.tiled import legal_densities as tiled_densities
from presplit.patterns.tiled import tiled

PATTERNS: Shelf[Family] = Shelf(
    "pattern family",
    {
        "grouped": grouped,
        "tiled": tiled,
        "block": block,
        "radix": radix,
        "clash_free": clash_free,
        "diagonal": diagonal,
        "n_of_m": n_of_m,
        "expander": expander,
        "biregular": biregular,
        "bernoulli": bernoulli,
    },
)

LEGAL: Shelf[Callable[[int, int], list[float]]] = Shelf(
    "pattern family",
    {
        "grouped": grouped_densities,
        "tiled": tiled_densities,
        "block": block_densities,
        "radix": radix_densities,
        "clash_free": clash_free_densities,
        "diagonal": diagonal_densities,
        "n_of_m": n_of_m_densities,
        "expander": expander_densities,
        "biregular": biregular_densities,
        "bernoulli": bernoulli_densities,
    },
)
"""The densities that each family can have for ``(n_in, n_out)``, rising; all end with 1."""

CHOSEN: Shelf[chosen.Chooser] = Shelf(
    "pattern family of which connections can be chosen",
    {
        "grouped": chosen.grouped,
        "tiled": chosen.tiled,
        "block": chosen.block,
        "n_of_m": chosen.n_of_m,
        "expander": chosen.expander,
        "biregular": chosen.biregular,
        "bernoulli": chosen.bernoulli,
    },
)
"""Functions ``(scores, *, density, seed)``: a pattern with the degrees of the family's own draw."""
