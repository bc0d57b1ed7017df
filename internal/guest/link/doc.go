// Package link makes fresh connections of a byte channel that has no notion of one: a virtio-serial port. Such a port
// gives bytes in order while both ends are there, but the host may come and go unnoticed, bytes written meanwhile are
// partly dropped and partly delivered late, and a restored machine goes on in the middle of a frame.
//
// Every connection has an epoch, a random number that the host draws. The host sends SYN until the guest answers ACK; both
// then exchange DATA frames, and either ends with FIN. A new SYN ends the former connection in the guest. A frame's header
// carries a check value, so that a reader which fell out of step finds the next one, and a sequence number, so that a
// connection in which something was lost breaks instead of going on with a hole.
//
// Where the machine has a socket device of its own (vsock), the agent listens there, and none of this is needed.
//
// Layer: guest; used by the engines on the host and by the agent. It imports none of ours.
package link

// PortName is the name of the virtio-serial port on which the agent answers.
const PortName = "smolvm.agent.0"
