"""The benchmark on engines: equal gradients of the contestants, and distinct cases."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks.engines import cases as _engine_cases
from benchmarks.engines.cases import BASE, CASES, CONTESTANTS, flops_of, gemm_rate, make_step, measure
from benchmarks.engines.run import _growth, _memory


def test_cases_have_names_of_their_own():
    assert len({case.name for case in CASES}) == len(set(CASES)) == len(CASES)


@pytest.mark.slow
def test_every_contestant_takes_the_same_step_and_threads_are_left_as_they_were():
    threads = torch.get_num_threads()
    small = replace(BASE, tasks=2, steps=2, shots=3, queries=3, threads=2)
    found = measure(small, rounds=3, seconds=1.0, expected={})
    assert torch.get_num_threads() == threads
    counts = {name: sum(row["contestant"] == name for row in found) for name in CONTESTANTS}
    assert all(count >= 3 for name, count in counts.items() if name != "TorchOpt" or count)
    assert all(row["difference"] < 1e-5 and row["seconds"] > 0 for row in found)
    assert flops_of(small) > 0
    assert gemm_rate(1, size=64) > 0


def test_slow_contestants_are_left_out():
    small = replace(BASE, tasks=2, steps=1, shots=2, queries=2)
    found = measure(small, rounds=3, seconds=0.1, expected={"higher": 1000 * _engine_cases.LIMIT})
    assert "higher" not in {row["contestant"] for row in found}


def test_torchopt_takes_no_part_in_first_order():
    assert make_step("TorchOpt", replace(BASE, first_order=True)) is None


def test_growth_compares_neighbours_along_one_axis_through_the_base_case():
    def case(seconds, **change):
        return {**asdict(replace(BASE, **change)), "contestants": {"batched": {"median_s": seconds}}}

    cases = [case(1.0), case(3.0, tasks=64), case(9.0, tasks=64, steps=1), case(0.5, tasks=8), case(2.0, steps=10)]
    tasks = _growth(cases, "tasks")
    assert [(row["from"], row["to"], row["times_as_large"], row["times_as_long"]) for row in tasks] == [
        (8, 32, 4.0, 2.0),
        (32, 64, 2.0, 3.0),
    ]
    assert [row["to"] for row in _growth(cases, "steps")] == [10]


@pytest.mark.slow
def test_peak_memory_is_that_of_the_step():
    """A process inherits the maximum of the one that started it: a step would seem to need the 300 MB in use here."""
    ballast = bytearray(300 * 2**20)
    notes = _memory("batched", 2, Path(__file__).parents[3], None).notes
    del ballast
    few, many = (_memory("vmap", tasks, Path(__file__).parents[3], None).notes for tasks in (2, 32))
    needs = [own["peak_mib"] - own["before_mib"] for own in (notes, few, many)]
    assert needs[0] < 100
    assert needs[2] > needs[1] + 50
