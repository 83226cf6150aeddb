"""queues.py timestamps|zerocopy|repair CA URL: what the kernel shows of the bytes that a socket has sent.

Prints {"sent": hex, "seen": [hex, ...]}: the records as sealed, and every copy of sent bytes that came back.
"""

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

from client import Client

how, ca, url = sys.argv[1:]
SO_TIMESTAMPING, SO_ZEROCOPY, MSG_ZEROCOPY = 37, 60, 0x4000000
TX_HARDWARE, TX_SOFTWARE, SOFTWARE, OPT_ID, TX_SCHED, TX_ACK = 1, 2, 16, 128, 256, 512
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE = 19, 20, 2


def deadline(condition, what):
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {what}")
        select.select([], [], [], 0.01)


client = Client(ca, url)
sock = client.socket
client.request("/0")
seen = []
if how == "timestamps":
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SOFTWARE | SOFTWARE | TX_SCHED | TX_ACK)
record = client.seal("/1", os.environ["SECRET"])
if how == "timestamps":
    sock.sendall(record)
    client.answer()
    def collect():
        while True:
            try:
                data, _, _, _ = sock.recvmsg(1 << 16, 1 << 12, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return len(seen) >= 2
            seen.append(data)
    deadline(collect, "time stamps")
elif how == "zerocopy":
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    pages = bytearray(record)
    if sock.send(pages, MSG_ZEROCOPY) != len(pages):
        raise SystemExit("a short write")
    client.answer()
    seen.append(bytes(pages))
elif how == "repair":
    port = sock.getpeername()[1]
    nft = f"table inet deaf {{ chain input {{ type filter hook input priority 0; tcp sport {port} drop; }}; }}"
    subprocess.run(["nft", nft], check=True)
    sock.sendall(record)
    # struct tcp_info: tcpi_retransmits is its third byte.
    deadline(lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2] > 0, "a retransmission")
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
    seen.append(sock.recv(1 << 16, socket.MSG_PEEK))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, 0)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    subprocess.run(["nft", "delete table inet deaf"], check=True)
    client.answer()
client.close()
print(json.dumps({"sent": record.hex(), "seen": [copy.hex() for copy in seen]}))
