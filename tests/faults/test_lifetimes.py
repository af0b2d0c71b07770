"""An edge beyond its time and place: after a fork, a close, its last reference, the interpreter."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from presplit.bundle import Bundle
from presplit.core.errors import InputError, PresplitError
from presplit.core.plans import Plan
from presplit.core.types import Answer
from presplit.runtime import Edge, Local

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def in_a_child(work: Callable[[], object]) -> str:
    """What ``work`` says in a forked process, which must end by itself within 10 seconds."""
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()

    def run() -> None:
        try:
            said.put(str(work()))
        except PresplitError as error:
            said.put(f"{type(error).__name__}: {error}")

    child = context.Process(target=run)
    child.start()
    child.join(10)
    alive = child.is_alive()
    child.kill()
    assert not alive, "the child hangs"
    assert child.exitcode == 0
    return said.get()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_the_child_of_a_fork_an_edge_refuses_and_a_new_one_answers(
    bundle: Bundle, promised: SimpleNamespace, server: str
) -> None:
    seen: list[Answer] = []
    edge = Edge.open(bundle, server=server, plan=Plan(1, deadline_s=5.0), watch=seen.append)
    local = Local.open(bundle, threads=2)
    assert edge.answer(promised.IMAGE).why == "server"

    def anew() -> str:
        with Edge.open(bundle, server=server, plan=Plan(1, deadline_s=5.0)) as own:
            return own.answer(promised.IMAGE).why

    said = in_a_child(lambda: edge.answer(promised.IMAGE))
    assert said.startswith("InputError: the edge was opened before a fork")
    assert said.endswith("open it in the child")
    said = in_a_child(lambda: local.answer(promised.IMAGE[None]))
    assert said.startswith("InputError: the engine was opened before a fork")
    assert in_a_child(edge.close) == "None"
    assert in_a_child(anew) == "server"
    assert edge.answer(promised.IMAGE).why == "server"  # the parent's is untouched
    edge.close()


def test_closing_twice_is_closing_once(bundle: Bundle, promised: SimpleNamespace) -> None:
    edge = Edge.open(bundle, plan=Plan(3))
    edge.close()
    edge.close()
    with pytest.raises(InputError, match="the edge is closed; open it again"):
        edge.answer(promised.IMAGE)


def test_an_edge_that_nobody_holds_lets_go_of_all_it_had(
    bundle: Bundle, promised: SimpleNamespace, server: str
) -> None:
    before = threading.active_count()
    edge = Edge.open(bundle, server=server, plan=Plan(1, deadline_s=5.0), watch=lambda _: None)
    assert edge.answer(promised.IMAGE).why == "server"
    gone = weakref.ref(edge)
    del edge
    gc.collect()
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert gone() is None
    assert threading.active_count() <= before


def test_an_edge_that_is_never_closed_neither_hangs_nor_complains_at_the_end(
    bundle: Bundle, server: str
) -> None:
    """Neither in its own process nor in one that is forked from it and ends as any other."""
    program = f"""if True:
        import atexit, numpy as np, os, sys
        from presplit.core.errors import InputError
        from presplit.core.plans import Plan
        from presplit.runtime import Edge
        x = np.ones(16, np.float32)
        def late():
            try:
                edge.answer(x)
            except InputError as error:
                print(error)
        atexit.register(late)  # runs after what was registered later
        edge = Edge.open({str(bundle.path)!r}, server={server!r}, plan=Plan(0, deadline_s=5.0),
                         watch=lambda answer: print("seen", answer.why))
        edge.answer(x)
        child = os.fork()
        if child == 0:
            atexit.unregister(late)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:.*fork", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = ["seen server", "the edge is closed; open it again to get answers"]
    assert done.stdout.splitlines() == expected
