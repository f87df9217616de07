"""What mutation.py rests on: its operators make mutants, and the list of equivalents is of today's code."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import mutation


def test_operators_and_equivalents():
    drawn = [m for name in mutation.NOTEBOOKS for m in mutation.mutants(name)]
    assert {m["operator"] for m in drawn} == set(mutation.OPERATORS)
    gone = mutation.equivalents().keys() - set(map(mutation.key, drawn))
    assert not gone, f"equivalents.csv lists mutants that can no longer be drawn: {gone}"
    assert all(why.strip() for why in mutation.equivalents().values())
