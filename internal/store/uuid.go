package store

import (
	"crypto/rand"
	"encoding/hex"
)

// NewUUID is a random one, version 4.
func NewUUID() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return b
}

// NewID is an id for a VM that nobody else makes up.
func NewID() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return "vm-" + hex.EncodeToString(b[:])
}
