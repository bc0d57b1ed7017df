// Package rpc is what crosses the border of a supervisor's process: the protocol of its control socket, both ends, and the
// plan and the reports that are exchanged while it starts.
//
// The control socket carries HTTP/2 without TLS; only our own user may connect. Every request names the protocols that its
// client speaks, and hello tells the server's, so that an unknown one is refused with a clear word. Calls are POSTs of JSON
// to /v1/NAME, files and tars are streamed bodies (GET and PUT of /v1/file and /v1/tar), and exec is a full-duplex stream:
//
//	request:  4 bytes of length, an api.ExecRequest as JSON, then the command's stdin until the end of the body
//	response: frames of 1 byte kind, 4 bytes length, payload; the last one tells how the command ended
//
// Attach has the same form: the request begins with an api.AttachRequest, the response with an api.Process.
//
// Failures are a JSON errdefs problem with its class's status; after a body has begun, the stream is broken off instead.
//
// Layer: between lifecycle and supervisor. It may import api, errdefs, internal/sys.
package rpc
