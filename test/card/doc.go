// Package card proves what a guest's network card carries behind the gateway: with the real Firecracker, its TAP, the packet
// socket at that, the gateway's own process, the real agent and the default image. It needs a KVM that works; `script/test lab` runs it where there
// is none.
//
// Layer: tests only; nothing imports it.
package card
