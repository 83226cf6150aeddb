"""tap.py INTERFACE FILE: writes every frame of an interface to a pcap file, until standard input ends.

Its last line says how many frames it has missed.
"""

import selectors
import socket
import struct
import sys

interface, file = sys.argv[1:]
everything = 0x0003  # ETH_P_ALL
sol_packet, packet_statistics = 263, 6
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything))
tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 16 << 20)
tap.bind((interface, everything))
tap.setblocking(False)
selector = selectors.DefaultSelector()
selector.register(tap, selectors.EVENT_READ)
selector.register(sys.stdin, selectors.EVENT_READ)
with open(file, "wb") as out:
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1))
    print(0, flush=True)
    ended = False
    while not ended:
        ended = any(key.fileobj is sys.stdin for key, _ in selector.select())
        while True:
            try:
                frame = tap.recv(1 << 17)
            except BlockingIOError:
                break
            out.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    _, missed = struct.unpack("II", tap.getsockopt(sol_packet, packet_statistics, 8))
    print(missed)
