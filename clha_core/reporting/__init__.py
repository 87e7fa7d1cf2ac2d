"""What every report looks like: its page and its plots."""
