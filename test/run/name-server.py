"""A name server for one answer: every name has the address given. Arguments: ADDRESS-TO-LISTEN-AT ANSWER"""
import socket, struct, sys, threading

listen, answer = sys.argv[1], socket.inet_aton(sys.argv[2])


def reply(query):
    end = query.index(b"\0", 12) + 5
    kind = struct.unpack("!H", query[end - 4 : end - 2])[0]
    head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, 1 if kind == 1 else 0, 0, 0) + query[12:end]
    return head + (b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + answer if kind == 1 else b"")


def stream(server):
    while True:
        connection, _ = server.accept()
        with connection:
            data = connection.recv(2)
            query = connection.recv(struct.unpack("!H", data)[0])
            text = reply(query)
            connection.sendall(struct.pack("!H", len(text)) + text)


udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((listen, 53))
tcp = socket.create_server((listen, 53))
threading.Thread(target=stream, args=(tcp,), daemon=True).start()
print("ready", flush=True)
while True:
    query, sender = udp.recvfrom(4096)
    udp.sendto(reply(query), sender)
