"""Which layer feeds which, as `torch.fx` follows a module without running it."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx, nn

from presplit.train.nets.exits import MultiExit


class _Tracer(fx.Tracer):
    """Does not look into the layers that are asked about."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = names

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """As torch.fx decides, and for every layer that is asked about."""
        return module_qualified_name in self.names or super().is_leaf_module(
            m, module_qualified_name
        )


def feeders(model: nn.Module, names: Collection[str]) -> dict[str, set[str]] | None:
    """For each layer of ``names`` that runs, in running order, those of them that it reads.

    A layer reads another if that one's output reaches it without passing a third. None if the
    module's code depends on its values, so that it cannot be followed.

    >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    >>> feeders(net, ["0", "2", "3"])
    {'0': set(), '2': {'0'}, '3': {'2'}}
    """
    if isinstance(model, MultiExit):
        inner = {name.removeprefix("model.") for name in names if name.startswith("model.")}
        read = feeders(model.model, inner)
        return read and {
            f"model.{name}": {f"model.{each}" for each in sources} for name, sources in read.items()
        }
    try:
        graph = _Tracer(names).trace(model)
    except Exception:  # a module's own code may raise anything on values that are not there yet
        return None
    found: dict[str, set[str]] = {}
    reached: dict[fx.Node, set[str]] = {}
    for node in graph.nodes:
        read = set[str]().union(*(reached[each] for each in node.all_input_nodes))
        if node.op == "call_module" and node.target in names:
            found.setdefault(str(node.target), set()).update(read)
            read = {str(node.target)}
        reached[node] = read
    return found
