import json, socket, sys, time

host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
block = bytearray(1 << 20)


def connect(kind):
    s = socket.create_connection((host, port), timeout=120)
    s.sendall(kind)
    return s


def rate(begin):
    return size / (1 << 20) / (time.perf_counter() - begin)


f = {}
with connect(b"d") as s:
    begin, got = time.perf_counter(), 0
    while n := s.recv_into(block):
        got += n
    f["Down"] = rate(begin)
    assert got == size, got
with connect(b"u") as s:
    begin = time.perf_counter()
    for _ in range(size >> 20):
        s.sendall(block)
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b"u"
    f["Up"] = rate(begin)
addr = socket.gethostbyname(host)
begin = time.perf_counter()
for _ in range(20):
    with socket.create_connection((addr, port), timeout=60) as s:
        s.sendall(b"c")
        s.recv(1)
f["Connect"] = (time.perf_counter() - begin) * 50
begin = time.perf_counter()
for _ in range(20):
    socket.gethostbyname(host)
f["Lookup"] = (time.perf_counter() - begin) * 50
print(json.dumps(f))
