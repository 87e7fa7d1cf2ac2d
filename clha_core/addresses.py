"""Addresses for readers: without what may be secret in them."""

from urllib.parse import unquote, urlsplit


def public_address(url: str) -> str:
    """A URL less user, password and query, in which some servers want a key."""
    parts = urlsplit(url)
    if not parts.netloc:  # sqlite:///mlflow.db, a folder
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_login(url: str) -> tuple[str, str, str]:
    """A URL less user and password, and these two, empty where there are none."""
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, unquote(parts.username or ""), unquote(parts.password or "")


def without_secrets(text: str, url: str) -> str:
    """A text, such as a library's error, in which a URL may stand: without user, password and query of that one."""
    parts = urlsplit(url)
    for secret in (f"{parts.netloc.rpartition('@')[0]}@", f"?{parts.query}"):
        text = text.replace(secret, "") if len(secret) > 1 else text
    return text
