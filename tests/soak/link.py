"""Links between the machines: TCP relays that delay, hold back one way, refuse, and cut at any byte."""
import selectors
import socket
import threading
import time

CHUNK = 65536


class Link(threading.Thread):
    """One that listens, and passes on to a target. What rules it may be changed at any time:

    delay    seconds each way            held     directions ("up", "down") in which nothing passes; it is kept, as TCP would
    refused  nobody gets a connection    cut()    all connections end, wherever they are; cut(n): after n more bytes
    """

    def __init__(self, at, target):
        super().__init__(daemon=True)
        self.target, self.delay, self.held, self.refused = target, 0.0, frozenset(), False
        self.cut_after, self.bytes, self.connections, self.cuts = None, 0, 0, 0
        self.pairs, self.queues, self.closed = {}, {}, False
        self.server = socket.create_server(at, backlog=64)
        self.sel = selectors.DefaultSelector()
        self.sel.register(self.server, selectors.EVENT_READ)
        self.start()

    def cut(self, after=0):
        self.cut_after = after

    def heal(self):
        self.delay, self.held, self.refused, self.cut_after = 0.0, frozenset(), False, None

    def close(self):
        self.closed = True
        self.join()
        self.drop_all()
        self.server.close()

    def run(self):
        while not self.closed:
            for key, _ in self.sel.select(0.002 if any(self.queues.values()) else 0.02):
                self.accept() if key.fileobj is self.server else self.receive(key.fileobj)
            if self.cut_after is not None and self.cut_after <= 0:
                self.cut_after = None
                self.drop_all()
            for sock in list(self.queues):
                self.send(sock)

    def accept(self):
        a, _ = self.server.accept()
        if self.refused:
            a.close()
            return
        try:
            b = socket.create_connection(self.target, timeout=1)
        except OSError:
            a.close()
            return
        self.connections += 1
        for sock, other, way in ((a, b, "up"), (b, a, "down")):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self.pairs[sock] = (other, way)
            self.queues[sock] = []
            self.sel.register(sock, selectors.EVENT_READ)

    def receive(self, sock):
        if sock not in self.pairs:
            return
        other, way = self.pairs[sock]
        if way in self.held and len(self.queues[other]) >= 16:
            time.sleep(0.001)  # the sender's window fills
            return
        try:
            data = sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.sel.unregister(sock)
        self.queues[other].append((time.monotonic() + self.delay, data, way))

    def send(self, sock):
        queue = self.queues.get(sock)
        while queue and queue[0][0] <= time.monotonic() and queue[0][2] not in self.held:
            _, data, way = queue[0]
            if self.cut_after is not None:
                data = data[:self.cut_after]
            try:
                if not queue[0][1]:
                    sock.shutdown(socket.SHUT_WR)
                    queue.pop(0)
                    self.end(sock)
                    continue
                n = sock.send(data) if data else 0
            except BlockingIOError:
                return
            except OSError:
                self.drop(sock)
                return
            self.bytes += n
            if self.cut_after is not None:
                self.cut_after -= n
                if self.cut_after <= 0:
                    return
            if n < len(queue[0][1]):
                queue[0] = (0, queue[0][1][n:], way)
                return
            queue.pop(0)

    def end(self, sock):
        """Both ways are at their ends?"""
        other = self.pairs[sock][0]
        ended = [s not in self.sel.get_map() for s in (sock, other)]
        if all(ended) and not self.queues[sock] and not self.queues[other]:
            self.drop(sock)

    def drop(self, sock):
        for s in (sock, self.pairs[sock][0]):
            if s in self.sel.get_map():
                self.sel.unregister(s)
            s.close()
            del self.pairs[s], self.queues[s]

    def drop_all(self):
        while self.pairs:
            self.cuts += 1
            self.drop(next(iter(self.pairs)))
