// Package command runs the user's commands in the guest: environment, user, cgroup, streams, timeout, end.
//
// A command ends when its own process ends. What it left in the background neither holds the call nor dies: what is in the
// pipes by then is delivered, later output is read and dropped. Only a timeout or a cancel kills all that it started.
//
// Layer: guest agent. It imports none of ours.
package command
