// Package files serves the guest's files: single operations and streams. Paths are absolute and resolved in the agent's
// root, which is the user's. Nothing is held in memory but a buffer per stream.
//
// Layer: guest agent. It imports the protocol.
package files
