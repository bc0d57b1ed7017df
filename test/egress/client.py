"""The hostile client: tries one way out and tells how it went. The last line is "allow" or "deny" and a few words."""
import os
import random
import socket
import struct
import sys
import time

GATEWAY, GUEST = "10.83.0.1", "10.83.0.2"
GATEWAY_MAC, GUEST_MAC = bytes.fromhex("02534d000002"), bytes.fromhex("02534d000001")


def verdict(ok, text):
    print("allow" if ok else "deny", text)


def tcp(host, port, wait=8):
    try:
        with socket.create_connection((host, int(port)), timeout=wait) as s:
            s.settimeout(wait)
            return s.recv(100).decode().strip()
    except OSError as e:
        return e


def probe_tcp(host, port, times="1"):
    got = None
    for _ in range(int(times)):
        got = tcp(host, port)
    verdict(isinstance(got, str) and got.startswith("hello"), got if isinstance(got, str) else repr(got))


def probe_any(port, *hosts):
    for h in hosts:
        got = tcp(h, port, 4)
        if isinstance(got, str) and got:
            return verdict(True, h + ": " + got)
    verdict(False, "none of %d" % len(hosts))


def udp(host, port, payload=b"token", wait=3):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(wait)
    try:
        s.connect((host, int(port)))
        s.send(payload)
        return s.recv(4000)
    except OSError as e:
        return e


def probe_udp(host, port):
    got = udp(host, port)
    verdict(isinstance(got, bytes), got[:20] if isinstance(got, bytes) else type(got).__name__)


def question(name, kind):
    q = struct.pack(">HHHHHH", 77, 0x100, 1, 0, 0, 0)
    for label in name.rstrip(".").split("."):
        q += bytes([len(label)]) + label.encode()
    return q + b"\0" + struct.pack(">HH", int(kind), 1)


def probe_dns(name, kind, server=GATEWAY):
    got = udp(server, 53, question(name, kind), 8)
    if not isinstance(got, bytes):
        return verdict(False, "no answer: " + type(got).__name__)
    _, flags, _, answers, _, _ = struct.unpack(">HHHHHH", got[:12])
    verdict(answers > 0, "code %d, %d answers" % (flags & 15, answers))


def probe_doh(host):
    got = tcp(host, 443)
    verdict(isinstance(got, str), str(got))


def checksum(b):
    if len(b) % 2:
        b += b"\0"
    s = sum(struct.unpack(">%dH" % (len(b) // 2), b))
    while s >> 16:
        s = (s & 0xFFFF) + (s >> 16)
    return ~s & 0xFFFF


def ip(dst, proto, payload, src=GUEST, options=b"", frag=0, ident=None):
    n = 20 + len(options)
    h = struct.pack(">BBHHHBBH4s4s", 0x40 | n // 4, 0, n + len(payload), random.randrange(65536) if ident is None else ident, frag, 64, proto, 0,
                    socket.inet_aton(src), socket.inet_aton(dst)) + options
    return h[:10] + struct.pack(">H", checksum(h)) + h[12:] + payload


def segment(dst, port, src=GUEST, flags=2, data=b""):
    t = struct.pack(">HHIIBBHHH", random.randrange(1024, 65535), port, 1, 0, 0x50, flags, 65535, 0, 0) + data
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack(">BBH", 0, 6, len(t))
    return t[:16] + struct.pack(">H", checksum(pseudo + t)) + t[18:]


def datagram(port, data=b"token"):
    return struct.pack(">HHHH", 4000, port, 8 + len(data), 0) + data


def card():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind(("eth0", 0))
    return s


def frames(*payloads, kind=0x0800, dst=GATEWAY_MAC, src=GUEST_MAC):
    s = card()
    for p in payloads:
        s.send(dst + src + struct.pack(">H", kind) + p)
    time.sleep(0.5)


def sent(what):
    verdict(False, "sent " + what + "; nobody answered" )


def probe_ping(host):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    s.settimeout(2)
    p = struct.pack(">BBHHH", 8, 0, 0, 9, 1) + b"tunnel" * 20
    s.sendto(p[:2] + struct.pack(">H", checksum(p)) + p[4:], (host, 0))
    try:
        s.recv(2000)
        verdict(True, "an answer")
    except OSError as e:
        verdict(False, type(e).__name__)


def probe_ipv6(dst):
    src, to = socket.inet_pton(socket.AF_INET6, "2001:db8:1::77"), socket.inet_pton(socket.AF_INET6, dst)
    frames(struct.pack(">IHBB", 0x60000000, 13, 17, 64) + src + to + datagram(5000), kind=0x86DD)
    try:
        socket.create_connection((dst, 80), timeout=3)
        verdict(True, "connected")
    except OSError as e:
        verdict(False, type(e).__name__)


def probe_fragments(dst):
    whole = datagram(5000, b"x" * 64)
    syn = segment(dst, 80)
    frames(ip(dst, 17, whole[:8], frag=0x2000, ident=7), ip(dst, 17, whole[8:], frag=1, ident=7),
           ip(dst, 6, syn[:8], frag=0x2000, ident=8), ip(dst, 6, syn[8:], frag=1, ident=8),
           ip(dst, 17, whole[8:], frag=1, ident=9))
    sent("fragments")


def probe_options(dst, via):
    lsrr = b"\x83\x07\x04" + socket.inet_aton(via) + b"\0"
    frames(ip(dst, 6, segment(dst, 80), options=lsrr), ip(dst, 17, datagram(5000), options=b"\x94\x04\0\0"))
    sent("source routes")


def probe_tcpoptions(dst):
    fast = segment(dst, 80, data=b"data in the SYN")
    null, xmas, ack = segment(dst, 80, flags=0), segment(dst, 80, flags=0x29), segment(dst, 80, flags=0x10)
    frames(*[ip(dst, 6, p) for p in (fast, null, xmas, ack)])
    sent("odd segments")


def probe_spoofed(dst):
    for src in ("10.83.0.3", GATEWAY, "198.51.100.77", "127.0.0.1", dst):
        frames(ip(dst, 6, segment(dst, 80, src), src), ip(dst, 17, datagram(5000), src))
    frames(ip(dst, 17, datagram(5000)), src=bytes.fromhex("020000000099"))
    sent("foreign sources")


def probe_protocols(dst):
    frames(*[ip(dst, p, b"x" * 40) for p in (2, 4, 41, 47, 50, 89, 132)])
    sent("other protocols")


def probe_broadcast(port):
    for dst in ("255.255.255.255", "10.83.0.3", "224.0.0.251", "239.255.255.250", "0.0.0.0"):
        frames(ip(dst, 17, datagram(int(port))), dst=b"\xff" * 6)
        frames(ip(dst, 17, datagram(int(port))))
    sent("broadcasts")


def probe_arp(host):
    claims = b""
    for who in (GATEWAY, GUEST, "10.83.0.3"):
        claims = struct.pack(">HHBBH", 1, 0x800, 6, 4, 2) + b"\x02\0\0\0\0\x99" + socket.inet_aton(who) + GATEWAY_MAC + socket.inet_aton(GATEWAY)
        frames(claims, kind=0x0806)
        frames(claims, kind=0x0806, dst=b"\xff" * 6)
    probe_tcp(host, 8080)


MARK = b"tunnel"  # also what probe_ping sends, and gets back


def probe_neighbour(port):
    """Frames to a card of the same kind on another wire, in all the ways that a switch would pass them on."""
    other = bytes.fromhex("02534d000003")
    for src in (GUEST_MAC, other):
        for dst in (GUEST_MAC, other, b"\xff" * 6, b"\x33\x33\0\0\0\1", b"\1\x80\xc2\0\0\0", GATEWAY_MAC):
            s = card()
            for to in (GUEST, "10.83.0.6", "10.83.0.255"):
                for p in (ip(to, 17, datagram(int(port), MARK)), ip(to, 6, segment(to, int(port), data=MARK)), ip(to, 1, b"\x08\0\0\0" + MARK)):
                    s.send(dst + src + b"\x08\0" + p)
                s.send(dst + src + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + src + socket.inet_aton(GUEST) + b"\0" * 6 + socket.inet_aton(to) + MARK)
            s.send(dst + src + b"\x88\xb5" + MARK * 10)
            s.send(dst + src + b"\x81\0\0\1\x88\xb5" + MARK * 10)
            s.close()
    time.sleep(0.5)
    sent("frames")


def probe_flood(seconds):
    """Garbage as fast as it goes, much of which gets past the first look."""
    s, end, n = card(), time.time() + float(seconds), 0
    to = ["198.51.100.%d" % i for i in range(1, 250)]
    noise = [GATEWAY_MAC + GUEST_MAC + b"\x08\0" + p for p in
             [ip(a, 17, datagram(9, os.urandom(1200)), frag=0x2000, ident=i) for i, a in enumerate(to)]
             + [ip(a, 6, segment(a, 1 + i)) for i, a in enumerate(to)] + [ip(a, 6, os.urandom(60)) for a in to]
             + [ip(a, 17, datagram(1000 + i, os.urandom(900))) for i, a in enumerate(to)]] + [os.urandom(300) for _ in range(250)]
    while time.time() < end:
        for f in noise:
            try:
                s.send(f)
                n += 1
            except OSError:
                pass
    sent("%d frames" % n)


def probe_watch(port):
    """Tells what reaches this VM: connections to its service, and frames with the mark."""
    import threading
    listener = socket.create_server(("", int(port)))

    def serve():
        while True:
            c, peer = listener.accept()
            print("service", peer[0], flush=True)
            c.sendall(b"hello from another VM\n")
            c.close()

    threading.Thread(target=serve, daemon=True).start()
    s = card()
    print("watching", flush=True)
    while True:
        frame, at = s.recvfrom(70000)
        if at[2] != socket.PACKET_OUTGOING and (MARK in frame or b"token" in frame):
            print("frame", frame[:42].hex(), flush=True)


def probe_hold(host, port):
    s = socket.create_connection((host, int(port)), timeout=10)
    print("up", s.recv(100).decode().strip(), flush=True)
    s.settimeout(1)
    end = time.time() + 60
    try:
        while True:
            s.sendall(b"x")
            try:
                s.recv(1)
            except TimeoutError:  # who waits for what was acknowledged is told when he sends again
                if time.time() > end:
                    raise
            time.sleep(0.1)
    except OSError as e:
        verdict(False, type(e).__name__)


def probe_hammer(host, port, seconds):
    """Dials without end while something happens: not one may come through."""
    end, n = time.time() + float(seconds), 0
    while time.time() < end:
        got = tcp(host, port, 2)
        n += 1
        if isinstance(got, str) and got:
            return verdict(True, got)
    verdict(False, "%d attempts" % n)


globals()["probe_" + sys.argv[1]](*sys.argv[2:])
