// Package boot brings a guest up as process 1: from the initramfs to the user's root file system, in the order of the
// design. Until Configure it writes to no drive.
//
// Layer: guest agent. It imports the protocol and the command runner.
package boot
