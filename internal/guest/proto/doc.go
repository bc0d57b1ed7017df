// Package proto is the protocol that the host and the agent in the guest share: agent.proto, its generated code, and the
// limits that both sides hold.
//
// Bulk data is not put into messages. On the same HTTP/2 connection the agent answers, with streamed bodies:
//
//	GET  /v1/file?path=P[&offset=N][&length=N]   the file's bytes (only regular files)
//	PUT  /v1/file?path=P[&mode=OCTAL][&uid=&gid=]  writes the body to a temporary file beside P, then renames it over P
//	GET  /v1/tar?path=P                          P (file or directory) as a tar whose names are relative to P's parent
//	PUT  /v1/tar?path=P                          unpacks the body below directory P, made when absent
//	POST /v1/port?port=N                         joins the stream with a TCP port of the guest, by the frames of guest/tunnel
//	GET  /v1/port/wait?port=N                    answers when something listens on a TCP port
//
// Their failures are answered with a JSON errdefs problem and its class's HTTP status; a failure after the body began
// ends the stream abnormally, never as a clean end.
//
// Layer: leaf.
package proto

// The versions of the protocol that this build speaks.
const (
	VersionMin = 1
	VersionMax = 2

	VersionProcesses = 2 // the first with terminals and with commands that outlive their caller
)

// Limits that both sides hold. What is over them is refused, never cut.
const (
	MaxMessage  = 3 << 19   // of one Connect message: Configure may have 1 MiB of environment, and 256 KiB of certificates
	ChunkSize   = 32 << 10  // of stdin, stdout and stderr in one message
	ReplaySize  = 128 << 10 // of output in one message to a reader who has much to catch up with
	InlineShell = 100 << 10 // longest script that travels in ExecStart
	MaxScript   = 16 << 20
	MaxList     = 1000 // entries in one ListResponse or ProcessesResponse
	MaxCommand  = 256  // bytes of a command's line in a Process
	MaxHeader   = 64 << 10
	MaxPath     = 4096
)
