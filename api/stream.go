package api

// What a command's WebSocket carries. Binary messages of the client are the command's input; those of the server begin with
// a byte that names the output. Text messages are StreamInput and StreamEvent.
const (
	StreamProtocol = "smolvm.v1" // the subprotocol

	StreamStdout byte = 1
	StreamStderr byte = 2

	// MaxStreamMessage bounds every message but the first one, which is the ExecRequest.
	MaxStreamMessage = 1 << 20
)

// Types of StreamInput.
const (
	StreamStdinEnd = "stdin_end" // there is no more input
	StreamResize   = "resize"    // Rows, Cols
	StreamSignal   = "signal"    // Signal, Group
)

// StreamInput is what a client says beside a command's input.
type StreamInput struct {
	Type   string `json:"type"`
	Rows   uint16 `json:"rows,omitempty"`
	Cols   uint16 `json:"cols,omitempty"`
	Signal string `json:"signal,omitempty"` // "SIGTERM"
	Group  bool   `json:"group,omitempty"`  // everything that the command started
}

// Types of what a server says beside a command's output. Each is an object with its type and the fields of a Go type; "error"
// has those of a problem, as other failures of the API.
const (
	StreamStarted = "started" // ProcessInfo
	StreamProcess = "process" // Process
	StreamGap     = "gap"     // StreamOutput: bytes that are not kept any more
	StreamExit    = "exit"    // ExecResult, of an attachment AttachEnd; the last one
	StreamError   = "error"   // the last one
	StreamEnd     = "end"     // StreamOutput: the command goes on, and nobody follows it
)

// StreamOutput is a piece of a command's output, or what is told of a gap in it. Offset is where the output goes on after it.
type StreamOutput struct {
	Data   []byte  `json:"data,omitempty"`
	Bytes  uint64  `json:"bytes,omitempty"`
	Offset *uint64 `json:"offset,omitempty"`
}

// AttachEnd is how a command ended that was followed, and where its output ends.
type AttachEnd struct {
	ExecResult
	Offset uint64 `json:"offset"`
}

// ProcessList is a listing of commands.
type ProcessList struct {
	Processes []Process `json:"processes"`
}

// SignalRequest sends a signal to a command.
type SignalRequest struct {
	Signal string `json:"signal"` // "SIGTERM", "TERM" or "15"
	Group  bool   `json:"group,omitempty"`
}
