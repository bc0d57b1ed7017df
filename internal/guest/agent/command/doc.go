// Package command runs the user's commands in the guest: environment, user, cgroup, streams, timeout, end.
//
// A command ends when its own process ends. What it left in the background neither holds the call nor dies: what is in the
// pipes by then is delivered, later output is read and dropped. Only a timeout or a cancel kills all that it started.
//
// The last output of each command is kept for those who attach to it, also for a while after its end. The caller that
// started it is its pipe: it gets everything, and the command waits for it; those who attach are not waited for.
//
// Layer: guest agent. It may import guest/agent/output.
package command
