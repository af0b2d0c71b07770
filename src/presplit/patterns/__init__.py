"""Pattern families: which connections a layer has, drawn before training and never changed."""

from presplit.core.protocols import Family
from presplit.core.shelf import Shelf
from presplit.patterns.bernoulli import bernoulli
from presplit.patterns.biregular import biregular
from presplit.patterns.grouped import grouped

PATTERNS: Shelf[Family] = Shelf("pattern family", {"grouped": grouped, "biregular": biregular, "bernoulli": bernoulli})
