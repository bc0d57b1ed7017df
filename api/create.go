package api

// CreateRequest asks the HTTP API for a VM.
type CreateRequest struct {
	Config
	// Start boots it too; a VM that does not boot is removed again.
	Start bool `json:"start,omitempty"`
	StartRequest
	OwnerRequest
}

// StartRequest asks the HTTP API to boot a VM.
type StartRequest struct {
	// SecretValues are the values of the VM's secrets, by name. They are kept in no record, so that each start needs all.
	SecretValues SecretValues `json:"secret_values,omitempty" writeOnly:"true"`
}

// Validate refuses what no owner rule is.
func (r CreateRequest) Validate() error { return r.OwnerRequest.Validate() }

// CommandRequest asks the HTTP API to run a command to its end.
type CommandRequest struct {
	ExecRequest
	// Input is what the command reads; InputBase64 the same for what is no text.
	Input       string `json:"input,omitempty"`
	InputBase64 []byte `json:"input_base64,omitempty"`
	// MaxOutputBytes bounds each of the two outputs; what goes beyond is dropped and told. 0 = DefaultOutputBytes.
	MaxOutputBytes int64 `json:"max_output_bytes,omitempty"`
	// Base64 asks for the outputs in base64; else bytes that are no UTF-8 are replaced.
	Base64 bool `json:"base64,omitempty"`
}

// What is kept of one output of a command that is run to its end.
const (
	DefaultOutputBytes = 16 << 20
	MaxOutputBytes     = 256 << 20
)

// CommandResult is how a command ended, and what it printed.
type CommandResult struct {
	ExecResult
	Stdout          string `json:"stdout"`
	Stderr          string `json:"stderr"`
	StdoutTruncated bool   `json:"stdout_truncated,omitempty"`
	StderrTruncated bool   `json:"stderr_truncated,omitempty"`
	// DurationMs is the time from its start to its end.
	DurationMs float64 `json:"duration_ms"`
}
