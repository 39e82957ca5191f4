#!/bin/bash
# Makes the dumps beside it, which the tests read: real connections and rules in a network
# namespace of its own, asked for by netlink(7) and kept as the kernel answers. As root:
#   unshare --net ./make.sh
# Needs iproute2, nftables, iptables (nf_tables backend), python3.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
ip link set lo up
ip link add d0 type veth peer name d1 && ip link set d0 up && ip link set d1 up
ip addr add 10.201.1.2/32 dev d0 && ip addr add fd20:1::2/128 dev d0 nodad
ip route add 10.97.0.0/16 dev d0 src 10.201.1.2
ip -6 route add fd97::/64 dev d0 src fd20:1::2

# As kube-proxy writes them, in mode iptables and in mode nftables.
iptables -t nat -N KUBE-SERVICES
iptables -t nat -N KUBE-SEP-AAAAAAAAAAAAAAAA
iptables -t nat -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
iptables -t nat -A OUTPUT -p tcp -m tcp --dport 9 -j ACCEPT
iptables -t nat -A KUBE-SERVICES -d 10.97.0.20/32 -p tcp -m tcp --dport 80 -j KUBE-SEP-AAAAAAAAAAAAAAAA
iptables -t nat -A KUBE-SERVICES -d 10.97.0.20/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.201.1.2:5353
iptables -t nat -A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.201.1.2:8080
ip6tables -t nat -A OUTPUT -d fd97::14/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination "[fd20:1::2]:8080"
nft -f - <<'N'
table ip kube-proxy {
  set affinity-5OJB2KTY-default/web/tcp/http__10.201.1.2/8080 {
    type ipv4_addr
    flags dynamic,timeout
    timeout 3h
    elements = { 10.201.1.3 expires 2h59m, 10.201.1.4 timeout 2h expires 1h }
  }
}
N

python3 - <<'P'
import socket, struct

def server(family, address):
    s = socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address); s.listen(); return s

def client(family, source, target):
    s = socket.socket(family); s.bind(source); s.connect(target); return s

keep = [server(socket.AF_INET, ("10.201.1.2", 8080)), server(socket.AF_INET6, ("fd20:1::2", 8080))]
open4 = client(socket.AF_INET, ("10.201.1.2", 40000), ("10.97.0.20", 80))
keep.append(client(socket.AF_INET6, ("fd20:1::2", 40001), ("fd97::14", 80)))
keep.append(client(socket.AF_INET, ("10.201.1.2", 40002), ("10.201.1.2", 8080)))
ended = client(socket.AF_INET, ("10.201.1.2", 40003), ("10.97.0.20", 80))
a = keep[0].accept()[0]; b = keep[0].accept()[0]; c = keep[0].accept()[0]
for s in (a, b, c):
    if s.getpeername()[1] == 40003: s.close()
ended.close()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("10.201.1.2", 40004))
udp.sendto(b"x", ("10.97.0.20", 53))

def attribute(kind, value):
    value = struct.pack("HH", 4 + len(value), kind) + value
    return value + b"\0" * (-len(value) % 4)

def dump(file, subsystem, kind, family, attributes=b""):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    body = struct.pack("BBH", family, 0, 0) + attributes
    s.send(struct.pack("IHHII", 16 + len(body), subsystem << 8 | kind, 0x301, 0, 0) + body)
    answer = b""
    while True:
        answer += s.recv(65536)
        at = 0
        while at < len(answer):
            length, kind = struct.unpack_from("IH", answer, at)
            if kind == 3:
                open(file, "wb").write(answer); return
            assert kind != 2, file
            at += (length + 3) & ~3

text = lambda kind, value: attribute(kind, value.encode() + b"\0")
name = "affinity-5OJB2KTY-default/web/tcp/http__10.201.1.2/8080"
dump("connections.bin", 1, 1, 0)
dump("chains.bin", 10, 4, 2)
dump("rules.bin", 10, 7, 2, text(1, "nat") + text(2, "OUTPUT"))
dump("elements.bin", 10, 13, 2, text(1, "kube-proxy") + text(2, name))
P
