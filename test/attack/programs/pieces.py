"""pieces.py CA URL SIZE SEGMENT: requests sent SIZE bytes a write, in segments of SEGMENT bytes at most."""

import os
import socket
import sys

from client import Client

ca, url, size, segment = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def prepare(sock):
    if segment:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)


client = Client(ca, url, prepare=prepare)
for number in range(3):
    record = client.seal(f"/{number}", os.environ["SECRET"])
    for at in range(0, len(record), size):
        client.socket.sendall(record[at : at + size])
    client.answer()
client.close()
