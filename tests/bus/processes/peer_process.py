"""A peer process that sends `count` numbered messages, or fewer once the file `until` is there, and notes each one that `send` accepted. Options are a JSON object in argv."""

import ctypes
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from bus.errors import OutboxFull
from bus.keys import Join
from bus.peer import Peer

options = json.loads(sys.argv[1])
step = 0
if "file_bytes" in options:
    resource.setrlimit(resource.RLIMIT_FSIZE, (options["file_bytes"], resource.RLIM_INFINITY))
spool = Path(options["spool"]) if "spool" in options else None
peer = Peer(
    Join.load(Path(options["join"])),
    spool=spool,
    heartbeat=lambda: f"step {step}",
    heartbeat_seconds=options.get("beat", 0.1),
)
peer.start()
accepted = os.open(options["accepted"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "accepted" in options else -1


def send_when_there_is_room(body: str, *, control: bool) -> None:
    """Control is refused, not dropped, when nobody acknowledges it fast enough: its sender waits."""
    while True:
        try:
            peer.send(options.get("type", "fact"), body, control=control)
        except OutboxFull:
            time.sleep(0.01)
        else:
            return


for step in range(1, options.get("count", 0) + 1):
    body = f"{options.get('prefix', '')}{step}"
    control = step % 2 == 0 if options.get("mixed") else options.get("control", True)
    send_when_there_is_room(body, control=control)
    if accepted >= 0:
        os.write(accepted, f"{body}\n".encode())
    time.sleep(options.get("pause", 0))
    if "until" in options and Path(options["until"]).exists():
        break
print("sent", flush=True)
if options.get("then") == "hold-gil":
    peer.wait_connected(10)
    time.sleep(0.5)
    ctypes.PyDLL(None).usleep(6_000_000)  # a C call that keeps the interpreter lock
elif options.get("then") == "stick":
    threading.Event().wait()
elif options.get("then") == "room":
    sys.stdin.readline() if options.get("ask") else time.sleep(0.5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    time.sleep(2.5)
    os._exit(0)
done = peer.close(flush_seconds=options.get("flush", 30))
print(json.dumps({"done": done, **vars(peer.counters)}), flush=True)
