"""The scoreboard: every method, tuned by one budget, over several seeds.

`studies/` says what is compared: on the embedded sample, whose truth is known, and on real rows. `tuning.py` picks each
method's settings on a world of its own, `cell.py` runs all variants in one world, `table.py` and `page.py` put the
cells together. `flows/scoreboard.py` maps the cells over
Prefect; every training is a run in MLflow.
"""
