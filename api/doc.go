// Package api holds the plain types that the SDKs, the HTTP API, the CLI and the store share, with their validation. It
// does no I/O. Sizes are MiB or bytes as the name says, times RFC 3339, durations milliseconds in fields that end in Ms.
//
// Layer: leaf above errdefs.
package api
