"""sniff.py CA URL KEYLOG DIRECTORY [mirror]: requests, and a capture of every interface that this workload can see.

Frames of each interface go to DIRECTORY/<interface>.pcap. With `mirror` whatever leaves is also copied to an interface
of our own by a filter.
"""

import os
import socket
import struct
import subprocess
import sys

from client import Client

ca, url, keylog, directory, *mirror = sys.argv[1:]
device = "eth0"
if mirror:
    for command in (
        "ip link add spy type veth peer name eye",
        "ip link set spy up",
        "ip link set eye up",
    ):
        subprocess.run(command.split(), check=True)
    hook = f"type filter hook egress device {device} priority 0"
    nft = f"table netdev mirror {{ chain out {{ {hook}; dup to spy; }}; }}"
    subprocess.run(["nft", nft], check=True)
everything = 0x0003  # ETH_P_ALL
spy = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything))
spy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

client = Client(ca, url, keylog)
for number in range(5):
    client.request(f"/{number}")
client.close()

files = {}
spy.setblocking(False)
while True:
    try:
        frame, (interface, *_) = spy.recvfrom(1 << 17)
    except BlockingIOError:
        break
    if interface not in files:
        files[interface] = open(os.path.join(directory, interface + ".pcap"), "wb")
        files[interface].write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1))
    files[interface].write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
