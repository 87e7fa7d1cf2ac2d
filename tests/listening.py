"""Where a command that was started can be reached."""

import ipaddress

import psutil


def beyond_loopback(pid: int) -> tuple[list[str], list[str]]:
    """Addresses that a process and all that it started listen at: those of this machine alone, and all others."""
    parent = psutil.Process(pid)
    found = [
        connection.laddr
        for process in [parent, *parent.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    within = [f"{at.ip}:{at.port}" for at in found if ipaddress.ip_address(at.ip).is_loopback]
    beyond = [f"{at.ip}:{at.port}" for at in found if not ipaddress.ip_address(at.ip).is_loopback]
    return within, beyond
