"""ports.py CA URL TIMES: connections one after the other from the same address and port, each reset at its end."""

import socket
import struct
import sys

from client import Client

ca, url, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
port = 0


def prepare(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.bind(("", port))


for number in range(times):
    client = Client(ca, url, prepare=prepare)
    port = client.socket.getsockname()[1]
    client.request(f"/{number}")
    client.close()
