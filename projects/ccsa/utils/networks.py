"""The network interfaces of this machine."""

import contextlib
import socket
import struct
import sys

_SIOCGIFADDR = 0x8915  # of Linux's ioctl: the IPv4 address of an interface


def interface_to(host: str, port: int) -> tuple[str, str]:
    """Return the address and the interface of this machine from which a host is reached.

    Nothing is sent. Only IPv4 is supported.

    Args:
        host: a name or an address.
        port: any port.

    Returns:
        The address and the name of the interface; each is empty if it is unknown. The name is known
        on Linux only.

    Example:
        >>> interface_to("127.0.0.1", 9)[0]
        '127.0.0.1'
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))
            address = probe.getsockname()[0]
    except OSError:
        return "", ""
    return address, _interface_of(address)


def _interface_of(address: str) -> str:
    if sys.platform != "linux":
        return ""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                request = struct.pack("256s", name.encode()[:15])
                reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                if socket.inet_ntoa(reply[20:24]) == address:
                    return name
    return ""
