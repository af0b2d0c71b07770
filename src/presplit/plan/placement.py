"""Which plan each model follows on each device, and which server runs its tail: chosen together.

The memory of every machine holds what is put there, none computes for a larger share of the time
than it may, each plan keeps to its model's limits, and the mean time (or energy) of a request over
all is as little as it can be. Exact, as a program of integers that CP-SAT of Google's OR-Tools
solves: costs in billionths of a second or joule, loads in millionths, memory in bytes. Where there
is no such placement, a second program finds the one that exceeds the machines least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from presplit.core import units
from presplit.core.errors import PlanError, library
from presplit.plan.options import Option

COST = 10**9
LOAD = 10**6
MOST_S = 60.0
"""Seconds of search; then the best that was found is taken."""


@dataclass(frozen=True, eq=False)
class Task:
    """A model on one device, and what it may do there."""

    name: str
    device: str
    options: Sequence[Option]


@dataclass(frozen=True)
class Room:
    """What a machine has: bytes of memory, and seconds of computing in a second."""

    memory_bytes: float
    load: float


@dataclass(frozen=True)
class Solution:
    """The number of the option that each task follows.

    ``gap``: by how much of it the cost may exceed the least there is; 0 if it is proved to be that.
    """

    chosen: tuple[int, ...]
    gap: float = 0.0


Use = dict[tuple[str, str], float]
"""What is taken of each machine: ``(machine, "memory" or "load")``."""


def used(options: Sequence[tuple[str, Option]]) -> Use:
    """What options, each on its device, take of the machines together.

    >>> tail = Option(1.0, 5, 0.1, server="rack", tail="t", tail_bytes=100, tail_load=0.25)
    >>> found = used([("cam", tail), ("door", tail)])
    >>> found["rack", "memory"], found["rack", "load"], found["cam", "memory"]
    (100.0, 0.5, 5.0)
    """
    found: Use = {}

    def take(machine: str, what: str, amount: float) -> None:
        found[machine, what] = found.get((machine, what), 0.0) + amount

    tails: dict[tuple[str, str], int] = {}
    for device, option in options:
        take(device, "memory", option.edge_bytes)
        take(device, "load", option.edge_load)
        if option.server is not None:
            take(option.server, "load", option.tail_load)
            tails[option.server, option.tail] = option.tail_bytes
    for (server, _), tail_bytes in tails.items():
        take(server, "memory", tail_bytes)
    return found


def solve(tasks: Sequence[Task], rooms: Mapping[str, Room], *, most_s: float = MOST_S) -> Solution:
    """The options that cost least together and fit all machines.

    Raises `PlanError` that says which machines are too small and by how much, if none fit.
    """
    program = _Program(tasks, rooms)
    solution = program.cheapest(most_s)
    if solution is None:
        raise PlanError(_too_small(tasks, rooms, program.nearest(most_s)))
    return solution


class _Program:
    """The program of integers: a choice for each task, and a tail held for each that needs it."""

    def __init__(self, tasks: Sequence[Task], rooms: Mapping[str, Room]) -> None:
        self.cp: Any = library(
            "ortools.sat.python.cp_model", need="placing models", extra="placement"
        )
        self.tasks, self.rooms = tasks, rooms
        every = [option for task in tasks for option in task.options]
        loads = sum(_millionths(o.edge_load) + _millionths(o.tail_load) for o in every)
        self.most = max(loads, sum(o.edge_bytes + o.tail_bytes for o in every))

    def cheapest(self, most_s: float) -> Solution | None:
        """The cheapest choice that fits; None if none fits."""
        model = self.cp.CpModel()
        chosen = self._chosen(model)
        for (machine, what), terms in self._taken(model, chosen).items():
            model.add(sum(terms) <= _capacity(self.rooms[machine], what))
        pairs = zip(chosen, self.tasks, strict=True)
        model.minimize(
            sum(
                x * round(COST * option.cost)
                for row, task in pairs
                for x, option in zip(row, task.options, strict=True)
            )
        )
        return self._solved(model, chosen, most_s)

    def nearest(self, most_s: float) -> Solution:
        """The choice by which machines are exceeded least, as shares of what they have."""
        model = self.cp.CpModel()
        chosen = self._chosen(model)
        slacks: list[Any] = []
        for (machine, what), terms in self._taken(model, chosen).items():
            capacity = _capacity(self.rooms[machine], what)
            # In steps of about a millionth of what the machine has; all together is enough.
            step = max(1, capacity // LOAD)
            missing = model.new_int_var(0, self.most // step + 1, "")
            slacks.append(missing * (LOAD * step // max(1, capacity)))
            model.add(sum(terms) <= capacity + step * missing)
        model.minimize(sum(slacks))
        found = self._solved(model, chosen, most_s)
        if found is None:
            raise PlanError(
                f"no placement was found within {most_s:g} s; place fewer models at once"
            )
        return found

    def _chosen(self, model: Any) -> list[list[Any]]:
        """For each task a variable for each option, just one of which is 1."""
        rows = [[model.new_bool_var("") for _ in task.options] for task in self.tasks]
        for row in rows:
            model.add_exactly_one(row)
        return rows

    def _taken(self, model: Any, chosen: list[list[Any]]) -> dict[tuple[str, str], list[Any]]:
        """What the choices take of each machine, as terms of a sum."""
        taken: dict[tuple[str, str], list[Any]] = {}
        tails: dict[tuple[str, str], tuple[Any, int]] = {}

        def take(machine: str, what: str, term: Any) -> None:
            taken.setdefault((machine, what), []).append(term)

        for row, task in zip(chosen, self.tasks, strict=True):
            for x, option in zip(row, task.options, strict=True):
                take(task.device, "memory", x * option.edge_bytes)
                take(task.device, "load", x * _millionths(option.edge_load))
                if option.server is None:
                    continue
                take(option.server, "load", x * _millionths(option.tail_load))
                key = (option.server, option.tail)
                if key not in tails:
                    tails[key] = model.new_bool_var(""), option.tail_bytes
                model.add_implication(x, tails[key][0])
        for (server, _), (held, tail_bytes) in tails.items():
            take(server, "memory", held * tail_bytes)
        return taken

    def _solved(self, model: Any, chosen: list[list[Any]], most_s: float) -> Solution | None:
        solver = self.cp.CpSolver()
        solver.parameters.max_time_in_seconds = most_s
        # One worker and a fixed seed find the same among equals, whatever the machine.
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = 0
        status = solver.solve(model)
        if status == self.cp.INFEASIBLE:
            return None
        if status not in (self.cp.OPTIMAL, self.cp.FEASIBLE):
            raise PlanError(
                f"no placement was found within {most_s:g} s; place fewer models at once"
            )
        picked = [[bool(solver.boolean_value(x)) for x in row].index(True) for row in chosen]
        cost, least = float(solver.objective_value), float(solver.best_objective_bound)
        done = status == self.cp.OPTIMAL or cost <= 0
        return Solution(tuple(picked), 0.0 if done else (cost - least) / cost)


def _millionths(load: float) -> int:
    """Rounded up, except for what a float may be off."""
    return math.ceil(LOAD * load - 1e-3)


def _capacity(room: Room, what: str) -> int:
    if what == "memory":
        return int(min(room.memory_bytes, 2**50))
    return math.floor(LOAD * room.load + 1e-3)


def _too_small(tasks: Sequence[Task], rooms: Mapping[str, Room], nearest: Solution) -> str:
    """Which machines the nearest choice exceeds, and by how much."""
    pairs = zip(tasks, nearest.chosen, strict=True)
    use = used([(task.device, task.options[number]) for task, number in pairs])
    missing: list[str] = []
    for (machine, what), amount in use.items():
        room = rooms[machine]
        if what == "memory" and amount > _capacity(room, what):
            missing.append(
                f"{machine} has {units.data(room.memory_bytes)} of memory and would need "
                f"{units.data(amount)}"
            )
        # What each takes is rounded up to a millionth.
        elif what == "load" and amount > room.load - 1e-6 * len(tasks):
            missing.append(
                f"{machine} may compute {room.load:.3g} s in a second and would need {amount:.3g} s"
            )
    return (
        f"no placement fits the machines; in the one that exceeds them least {', '.join(missing)}: "
        "give those more, or ask for less"
    )
