// Package agent is our program in the guest: the service that the host calls, and, as process 1, what boots the guest. See
// docs/agent.md.
//
// Layer: guest. It imports guest/proto, guest/link, guest/tunnel and its own folders.
package agent
