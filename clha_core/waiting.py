"""Locks between processes that are waited for, with a message."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import BaseFileLock, Timeout


@contextmanager
def held(lock: BaseFileLock, busy: str) -> Iterator[None]:
    """Have a lock; while another process has it, say that it is `busy` and wait.

    The lock is the operating system's: a process that dies gives it back.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting: {busy} ({lock.lock_file})", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
