"""`tieout bench bots` measures what it says."""

from tieout.bench.bots import bench


def test_a_first_cycle_reads_everything_and_later_ones_what_is_new() -> None:
    result = bench(3, 60, 6)
    assert [cycle.lines_read for cycle in result.cycles] == [3 + 2 * 60, 0, 2 * 6]
    assert [cycle.status for cycle in result.cycles] == ["ok", "ok", "critical"]
    assert all(cycle.peak_mb > 0 for cycle in result.cycles)
