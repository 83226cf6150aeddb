"""Says its port, accepts connections, and writes all that comes to standard output, until its standard input ends."""

import os
import selectors
import socket
import sys

listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
print(listener.getsockname()[1], flush=True)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
selector.register(sys.stdin, selectors.EVENT_READ)
ended = False
while not ended or len(selector.get_map()) > 2:
    for key, _ in selector.select(0 if ended else None) or [(None, None)]:
        if key is None:
            raise SystemExit
        if key.fileobj is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
        elif key.fileobj is sys.stdin:
            ended = ended or not os.read(0, 4096)
            if ended:
                selector.unregister(sys.stdin)
        else:
            data = key.fileobj.recv(65536)
            if data:
                os.write(1, data)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
