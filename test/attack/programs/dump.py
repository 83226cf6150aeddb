"""dump.py CA URL DIRECTORY: two requests, and then a core dump of this process by a debugger of the workload's own."""

import ctypes
import os
import subprocess
import sys

from client import Client

PR_SET_PTRACER, ANY = 0x59616D61, ctypes.c_ulong(-1)
ca, url, directory = sys.argv[1:]
client = Client(ca, url)
client.request("/core")
client.request("/core")
ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
core = os.path.join(directory, "core")
subprocess.run(["gcore", "-o", core, str(os.getpid())], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
client.request("/core")
