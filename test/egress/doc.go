// Package egress tries to get out of a VM by every way that we know of, and shows in a table what came of it. A hostile
// client in a guest meets servers in a network namespace of their own, behind a veth pair on 198.51.100.0/24, which the
// policy takes for public; behind them lie the private and metadata addresses, so that a packet that leaks does arrive,
// and is seen. It needs root, or user namespaces.
//
// TestVMLongClients has friendly clients in that place: git, pip, npm and curl, as docs/https.md tells how to use them, of
// servers of our own by the names github.com, pypi.org and registry.npmjs.org.
//
// Layer: tests only; nothing imports it.
package egress
