// Package fork proves that machines which go on from one snapshot are machines of their own: with the real Firecracker, the real
// agent and the default image. It needs a KVM that works; `script/test lab` runs it where there is none.
//
// Layer: tests only; nothing imports it.
package fork
