"""Addresses for readers: without what may be secret in them."""

from urllib.parse import urlsplit


def public_address(url: str) -> str:
    """A URL less user, password and query, in which some servers want a key."""
    parts = urlsplit(url)
    if not parts.netloc:  # sqlite:///mlflow.db, a folder
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_secrets(text: str, url: str) -> str:
    """A text, such as a library's error, in which a URL may stand: without user and password of that one."""
    user = urlsplit(url).netloc.rpartition("@")[0]
    return text.replace(f"{user}@", "") if user else text
