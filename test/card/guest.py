"""Moves bytes between the guest and the host's loopback, and prints what it knows of its card and of them, as JSON."""
import array, fcntl, glob, hashlib, json, os, socket, struct, sys

host, port, size, mtu = sys.argv[1], *map(int, sys.argv[2:])

# Of linux/ethtool.h.
GETS = {"rx checksum": 0x14, "tx checksum": 0x16, "scatter-gather": 0x18, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
SIOCSIFMTU, SIOCETHTOOL = 0x8922, 0x8946


def feature(command):
    value = array.array("B", struct.pack("II", command, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCETHTOOL, struct.pack("16sP", b"eth0", value.buffer_info()[0]))
    return struct.unpack("II", value)[1]


def read(path):
    with open(path) as f:
        return f.read().strip()


def connect(kind):
    s = socket.create_connection((host, port), timeout=300)
    s.sendall(kind)
    return s


def exactly(s, n):
    got = b""
    while len(got) < n:
        more = s.recv(n - len(got))
        assert more, "it ended early"
        got += more
    return got


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
    fcntl.ioctl(card, SIOCSIFMTU, struct.pack("16si", b"eth0", mtu) + bytes(20))
bits = read(os.path.join(os.path.realpath("/sys/class/net/eth0/device"), "features"))
f = {
    "MTU": int(read("/sys/class/net/eth0/mtu")),
    "Driver": os.path.basename(os.path.realpath("/sys/class/net/eth0/device/driver")),
    "Bits": [i for i, bit in enumerate(bits) if bit == "1"],
    "Ethtool": {name: feature(command) for name, command in GETS.items()},
}
block = bytearray(os.urandom(1 << 20))
sent = hashlib.sha256()
with connect(b"u") as s:
    for i in range(size >> 20):
        block[:8] = i.to_bytes(8, "big")
        sent.update(block)
        s.sendall(block)
    s.shutdown(socket.SHUT_WR)
    f["Up"] = exactly(s, 32) == sent.digest()
got = hashlib.sha256()
with connect(b"d") as s:
    left = size
    while left:
        n = s.recv_into(block, min(left, len(block)))
        assert n, f"{left} bytes are missing"
        got.update(memoryview(block)[:n])
        left -= n
    f["Down"] = exactly(s, 32) == got.digest()
counts = {name: int(read(f"/sys/class/net/eth0/statistics/{name}")) for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "rx_dropped", "tx_errors", "tx_dropped")}
print(json.dumps(f | {"Counts": counts}))
