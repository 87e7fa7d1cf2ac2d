"""The embedded sample: generated preference dialogues about a small world whose truth is known."""
