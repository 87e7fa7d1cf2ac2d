"""Two evaluated models, prompt by prompt. Not part of the stage `evaluate`, which runs again when its code changes."""
