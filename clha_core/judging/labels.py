"""The five labels that a judge of two answers A and B chooses from, and what they say about a system."""

LABELS = ("A much better", "A better", "tie", "B better", "B much better")
OUTCOMES = {1: "win", 0: "tie", -1: "lose"}

_SCORES = {label: 2 - place for place, label in enumerate(LABELS)}


def label_score(label: str) -> int:
    """2 for "A much better", down to -2 for "B much better"."""
    return _SCORES[label]


def system_score(label: str, *, system_is_a: bool) -> int:
    """The same from the system's side: 2 if it is much better, -2 if the other one is."""
    return label_score(label) if system_is_a else -label_score(label)


def sign(value: float, tie_band: float = 0.0) -> int:
    """1 (win), 0 (tie) or -1 (lose) of a difference; within `tie_band` of zero, both ends included, is a tie."""
    return 0 if abs(value) <= tie_band else 1 if value > 0 else -1
