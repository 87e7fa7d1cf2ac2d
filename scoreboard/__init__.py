"""The scoreboard: every method on worlds with a known truth, tuned by one budget, over several seeds.

`study.yaml` says what is compared. `tuning.py` picks each method's settings on a world of its own, `cell.py` runs all
variants in one world, `table.py` and `figure.py` put the cells together. `flows/scoreboard.py` maps the cells over
Prefect; every training is a run in MLflow.
"""
