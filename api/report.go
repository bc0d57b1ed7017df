package api

// CheckStatus is the verdict of one line of `smolvm doctor`.
type CheckStatus string

// The verdicts.
const (
	CheckOK      CheckStatus = "ok"
	CheckWarning CheckStatus = "warning"
	CheckFailure CheckStatus = "failure"
)

// Check is one line of `smolvm doctor`.
type Check struct {
	Name   string      `json:"name"`
	Status CheckStatus `json:"status"`
	Detail string      `json:"detail"`
	Remedy string      `json:"remedy,omitempty"`
}

// Suite is the outcome of one suite of `smolvm bench`.
type Suite struct {
	Suite   string   `json:"suite"`
	Figures []Figure `json:"figures"`
}

// Figure is one measured number. Goal is empty for figures that are only told.
type Figure struct {
	Name    string    `json:"name"`
	Value   float64   `json:"value"`
	Unit    string    `json:"unit"`
	Goal    string    `json:"goal,omitempty"` // "<= 1.15"
	OK      bool      `json:"ok"`
	Samples []float64 `json:"samples"`
	// Skipped says why it was not measured here; Value is 0 then, and OK true.
	Skipped string `json:"skipped,omitempty"`
}

// Version tells which program this is.
type Version struct {
	Version     string `json:"version"`
	Commit      string `json:"commit"`
	AgentDigest string `json:"agent_digest"`
	Go          string `json:"go"`
	ProtocolMin int    `json:"protocol_min"`
	ProtocolMax int    `json:"protocol_max"`
}
