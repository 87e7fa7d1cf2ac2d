"""`python -m clha_core`: what dvc.yaml calls, so that a stage runs the code of the folder it is started in."""

from clha_core.cli import main

main()
