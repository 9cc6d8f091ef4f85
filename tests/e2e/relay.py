#!/usr/bin/env python3
"""A TCP relay on loopback that counts: relay.py LISTEN-PORT TARGET-PORT COUNT-FILE [DELAY-MS]

Writes {"up", "down", "turns", "connections", "seconds"} to COUNT-FILE after each change: bytes in both directions, how often the
direction changed, and the time from the first byte to the last. SIGUSR1 sets the counts to zero. A delay is added one way each way.
"""
import json, os, selectors, signal, socket, sys, time

listen, target, count_file, delay = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4] if len(sys.argv) > 4 else 0) / 1000
counts = {"up": 0, "down": 0, "turns": 0, "connections": 0, "seconds": 0}
last = None
first = 0
dirty = True


def reset(*_):
    global last, dirty
    counts.update(up=0, down=0, turns=0, connections=0, seconds=0)
    last, dirty = None, True


def write():
    global dirty
    with open(count_file + ".new", "w") as f:
        json.dump(counts, f)
    os.rename(count_file + ".new", count_file)
    dirty = False


signal.signal(signal.SIGUSR1, reset)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", listen))
server.listen(64)
sel = selectors.DefaultSelector()
sel.register(server, selectors.EVENT_READ, None)
queues = {}  # socket -> [(due, bytes)]; b"" closes
write()


def flush(sock):
    while queues.get(sock) and queues[sock][0][0] <= time.monotonic():
        data = queues[sock][0][1]
        try:
            if not data:
                sock.shutdown(socket.SHUT_WR)
                queues[sock].pop(0)
                continue
            n = sock.send(data)
        except BlockingIOError:
            return
        except OSError:
            queues[sock] = []
            return
        if n < len(data):
            queues[sock][0] = (0, data[n:])
            return
        queues[sock].pop(0)


while True:
    waiting = [q[0][0] for q in queues.values() if q]
    timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else 1.0
    for key, _ in sel.select(min(timeout, 1.0) if not waiting or timeout else 0.002):
        if key.data is None:
            a, _ = server.accept()
            try:
                b = socket.create_connection(("127.0.0.1", target))
            except OSError:
                a.close()
                continue
            for s, other, way in ((a, b, "up"), (b, a, "down")):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.setblocking(False)
                queues[s] = []
                sel.register(s, selectors.EVENT_READ, (other, way))
            counts["connections"] += 1
            dirty = True
            continue
        other, way = key.data
        try:
            data = key.fileobj.recv(262144)
        except BlockingIOError:
            continue
        except OSError:
            data = b""
        if data:
            if not counts["turns"]:
                first = time.monotonic()
            counts["seconds"] = time.monotonic() - first
            counts[way] += len(data)
            if way != last:
                counts["turns"] += 1
                last = way
            dirty = True
        else:
            sel.unregister(key.fileobj)
        queues[other].append((time.monotonic() + delay, data))
    for sock in list(queues):
        flush(sock)
    if dirty:
        write()
