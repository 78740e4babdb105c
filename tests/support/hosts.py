"""Two hosts on one machine: network namespaces that are joined by a cable."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_NEW_NETWORK = 0x40000000  # of Linux's setns


class TwoHosts:
    """Two hosts with networks and names of their own. They share the file system.

    Attributes:
        names: of the hosts, which each of them resolves.
        addresses: of the hosts.
    """

    addresses = ("10.231.0.1", "10.231.0.2")

    def __init__(self) -> None:
        self.names = tuple(f"ccsa{os.getpid()}{letter}" for letter in "ab")

    def words(self, host: int, *command: object) -> list[str]:
        """Return the command line that runs a command on a host, in the same process."""
        name = self.names[host]
        enter = ["ip", "netns", "exec", name, "unshare", "--uts"]
        return [*enter, "sh", "-c", 'hostname "$0" && exec "$@"', name, *map(str, command)]

    def enter(self, host: int) -> None:
        """Move this thread, and those that it starts, to the network of a host."""
        file = os.open(f"/var/run/netns/{self.names[host]}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(file, _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(file)

    def connect(self, connected: bool) -> None:
        """Plug the cable in, or pull it out."""
        _ip("-n", self.names[1], "link", "set", "cable", "up" if connected else "down")


@contextlib.contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Create two hosts; remove them at the end.

    Raises:
        OSError: this is not permitted here.
    """
    hosts = TwoHosts()
    files = [Path("/etc/netns") / name / "hosts" for name in hosts.names]
    try:
        lines = [" ".join(pair) for pair in zip(hosts.addresses, hosts.names, strict=True)]
        for name, file in zip(hosts.names, files, strict=True):
            _ip("netns", "add", name)
            file.parent.mkdir(parents=True)
            file.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        a, b = hosts.names
        _ip("-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b)
        for name, address in zip(hosts.names, hosts.addresses, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield hosts
    finally:
        for name, file in zip(hosts.names, files, strict=True):
            with contextlib.suppress(OSError):
                _ip("netns", "delete", name)
            shutil.rmtree(file.parent, ignore_errors=True)


def permitted() -> bool:
    """Return whether this process may create network namespaces."""
    if sys.platform != "linux" or os.geteuid() or not shutil.which("ip"):
        return False
    try:
        with two_hosts():
            return True
    except OSError:
        return False


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
