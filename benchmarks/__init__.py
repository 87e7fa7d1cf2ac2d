"""Speed and memory of training against others. Libraries read these settings while they are imported."""

import os

QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "KINETO_LOG_LEVEL": "99",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
