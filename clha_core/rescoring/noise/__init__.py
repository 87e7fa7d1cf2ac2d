"""The noise report: where the reward model contradicts the human labels, what that depends on, what a gap masks."""
