"""Tables: every line as wide as its columns need, every number with its unit."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core import units
from presplit.core.tables import Column, columns_of, table
from presplit.report.plots import WAYS


def test_the_demo_s_table_reads_well() -> None:
    numbers = {"accuracy": 0.975, "edge_share": 0.7, "mean_s": 0.002, "p50_s": 0.0012}
    numbers |= {"p99_s": 0.031, "edge_bytes": 18_480, "edge_macs": 1e6}
    rows = [{"way": way, "up_bytes": n, **numbers} for way, n in (("edge", 0), ("server", 784))]
    assert table(rows, WAYS).splitlines() == [
        "way     accuracy  on the edge  mean     p50    p99  sent/answer  weights there  edge MACs",
        "------  --------  -----------  ----  ------  -----  -----------  -------------  ---------",
        "edge     97.50 %      70.00 %  2 ms  1.2 ms  31 ms          0 B        18.5 kB        1 M",
        "server   97.50 %      70.00 %  2 ms  1.2 ms  31 ms        784 B        18.5 kB        1 M",
    ]


def test_a_missing_number_is_an_empty_cell() -> None:
    assert table([{"way": "edge"}], WAYS[:2]).splitlines()[-1] == "edge"


def test_a_table_without_rows_is_its_titles() -> None:
    assert table([], WAYS[:2]).splitlines() == ["way  accuracy", "---  --------"]


def test_rows_of_one_s_own_are_shown_under_the_names_of_all_their_columns() -> None:
    rows = [{"way": "edge", "p50_s": 0.00123456}, {"way": "server", "sent": 784}]
    assert table(rows, columns_of(rows)).splitlines() == [
        "way        p50_s  sent",
        "------  --------  ----",
        "edge    0.001235",
        "server             784",
    ]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.text("abcxyz-+", min_size=1), st.floats(0, 1e12)), min_size=1, max_size=5)
)
def test_cells_of_a_number_column_end_in_one_place(found: list[tuple[str, float]]) -> None:
    columns = [Column("name", "name", str, text=True), Column("n", "n", units.count)]
    lines = table([{"name": name, "n": n} for name, n in found], columns).splitlines()
    assert len({len(line) for line in lines}) == 1


@settings(max_examples=30)
@given(st.floats(1e-9, 1e9))
def test_a_time_is_shown_to_three_digits(value: float) -> None:
    number, unit = units.seconds(value).split()
    assert "e" not in number
    shown = float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert abs(shown - value) <= 0.006 * value
