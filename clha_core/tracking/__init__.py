"""The record of trainings: a thin interface, and MLflow behind it."""
