"""ways.py CA URL: a request on each kind of TCP socket that a program may choose. Its placeholder is WAY_<name>."""

import os
import socket
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


for make in (multipath, fast_open, bound, mapped, small):
    client = Client(ca, url, connection=make())
    client.request("/" + make.__name__, os.environ["WAY_" + make.__name__])
    client.request("/" + make.__name__, os.environ["WAY_" + make.__name__])
    client.close()
