"""Figures in the documentation are what their scripts draw."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_figure_of_packed_trees_shows_what_the_code_packs(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.svg"
    subprocess.run([sys.executable, "docs/figures/tree_packing.py", drawn], cwd=ROOT, check=True)
    assert drawn.read_bytes() == (ROOT / "docs/images/tree-packing.svg").read_bytes()
