"""ways.py CA URL: a request on each kind of TCP socket that a program may choose. Its placeholder is WAY_<name>.

Says what came of a connection from an address that is not ours.
"""

import ctypes
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import urllib.parse

from client import Client

ca, url = sys.argv[1:]
parts = urllib.parse.urlsplit(url)
address = (socket.gethostbyname(parts.hostname), parts.port)
IPPROTO_MPTCP, MSG_FASTOPEN, TCP_FASTOPEN_CONNECT = 262, 0x20000000, 30


def connected(sock):
    sock.connect(address)
    return sock


def multipath():
    return connected(socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP))


def fast_open():
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    return connected(sock)


def bound():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    return connected(sock)


def mapped():
    sock = socket.socket(socket.AF_INET6)
    sock.connect(("::ffff:" + address[0], address[1]))
    return sock


def small():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 1)
    return connected(sock)


class Ring:
    """A socket whose bytes the kernel's worker sends: io_uring, without a library."""

    SETUP, ENTER, SEND, GET_EVENTS, SQES = 425, 426, 26, 1, 0x10000000

    def __init__(self, sock):
        self.socket = sock
        self.recv, self.setsockopt, self.close = sock.recv, sock.setsockopt, sock.close
        self.call = ctypes.CDLL(None, use_errno=True).syscall
        params = ctypes.create_string_buffer(120)
        self.ring = self.call(self.SETUP, 4, params)
        if self.ring < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        (self.tail, self.array) = struct.unpack_from("4xI16xI", params, 40)
        (self.cq_head, self.cq_tail, self.cqes) = struct.unpack_from("II12xI", params, 80)
        self.queue = mmap.mmap(self.ring, 4096)
        self.entries = mmap.mmap(self.ring, 4096, offset=self.SQES)

    def sendall(self, data):
        buffer = ctypes.create_string_buffer(data, len(data))
        sent = 0
        while sent < len(data):
            at = ctypes.addressof(buffer) + sent
            entry = struct.pack("<BBHiQQIIQ24x", self.SEND, 0, 0, self.socket.fileno(), 0, at, len(data) - sent, 0, 1)
            self.entries[: len(entry)] = entry
            (tail,) = struct.unpack_from("I", self.queue, self.tail)
            struct.pack_into("I", self.queue, self.array + 4 * (tail % 4), 0)
            struct.pack_into("I", self.queue, self.tail, tail + 1)
            if self.call(self.ENTER, self.ring, 1, 1, self.GET_EVENTS, None, 0) != 1:
                raise OSError(ctypes.get_errno(), "io_uring_enter")
            (head,) = struct.unpack_from("I", self.queue, self.cq_head)
            (result,) = struct.unpack_from("8xi", self.queue, self.cqes + 16 * (head % 8))
            struct.pack_into("I", self.queue, self.cq_head, head + 1)
            if result < 0:
                raise OSError(-result, "send")
            sent += result


def ring():
    return Ring(connected(socket.socket()))


def ip(*words):
    return json.loads(subprocess.run(["ip", "-j", *words], check=True, capture_output=True).stdout or "[]")


def macvlan():
    """From an interface of our own on top of the one that we have, with its address."""
    [link] = ip("-4", "address", "show", "dev", "eth0")
    [gateway] = [route["gateway"] for route in ip("-4", "route", "show", "default")]
    ours = f"{link['addr_info'][0]['local']}/{link['addr_info'][0]['prefixlen']}"
    ip("link", "add", "link", "eth0", "name", "above", "type", "macvlan", "mode", "private")
    ip("address", "delete", ours, "dev", "eth0")
    ip("address", "add", ours, "dev", "above")
    ip("link", "set", "above", "up")
    ip("route", "replace", "default", "via", gateway, "dev", "above")
    return connected(socket.socket())


def transparent():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
    sock.settimeout(3)
    sock.bind(("192.0.2.99", 0))
    return connected(sock)


try:
    transparent()
    print("from another's address: connected")
except TimeoutError:
    print("from another's address: nothing comes back")

for make in (multipath, fast_open, bound, mapped, small, ring, macvlan):
    client = Client(ca, url, connection=make())
    client.request("/" + make.__name__, os.environ["WAY_" + make.__name__])
    client.request("/" + make.__name__, os.environ["WAY_" + make.__name__])
    client.close()
