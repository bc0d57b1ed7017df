package api

import "time"

// TTY is a command's terminal at its start.
type TTY struct {
	TerminalSize
	Term string `json:"term,omitempty"` // TERM of the caller, unless Env has it; one that the guest does not know is replaced
}

// TerminalSize is the size of a terminal in characters; 0 is unknown.
type TerminalSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Process is a command that was started in a VM. The guest is hostile: these are its claims, bounded.
type Process struct {
	ExecID   string     `json:"exec_id"`
	PID      int        `json:"pid"`     // in the guest
	Command  string     `json:"command"` // its arguments in one line, cut
	User     string     `json:"user"`
	TTY      bool       `json:"tty,omitempty"`
	Stdin    bool       `json:"stdin,omitempty"`    // it has an input that can be written to
	Detached bool       `json:"detached,omitempty"` // it outlives the client that started it
	Main     bool       `json:"main,omitempty"`     // the command of `run -d`
	Started  time.Time  `json:"started_at"`
	Ended    *time.Time `json:"ended_at,omitempty"`
	// Result is how it ended; nil while it runs.
	Result *ExecResult `json:"result,omitempty"`
	// OutputBytes is how much it printed so far, on both streams; OutputFrom the offset of the first byte that is kept.
	OutputBytes uint64 `json:"output_bytes"`
	OutputFrom  uint64 `json:"output_from"`
}

// AttachRequest joins a caller to a command that was started before.
type AttachRequest struct {
	// Process is its id, or the beginning of it where no other one begins so; "" is the VM's main command, else the only one
	// that runs.
	Process  string `json:"process,omitempty"`
	Offset   uint64 `json:"offset,omitempty"` // where in its output to begin
	NoFollow bool   `json:"no_follow,omitempty"`
	Stdin    bool   `json:"stdin,omitempty"` // pass input on; its end does not end the command's
}

// AttachResult is how an attachment ended.
type AttachResult struct {
	Result *ExecResult `json:"result,omitempty"` // of the command; nil when it still runs
	Offset uint64      `json:"offset"`           // where to go on
}

// Stats is what a VM uses.
type Stats struct {
	VM          string    `json:"vm"`
	Time        time.Time `json:"time"`
	State       State     `json:"state"`
	CPUs        int       `json:"cpus"`
	MemoryLimit uint64    `json:"memory_limit_bytes"`
	DiskLimit   uint64    `json:"disk_limit_bytes"`
	// Guest is what the guest says of itself; nil when it does not run.
	Guest *Metrics `json:"guest,omitempty"`
	// CPUPercent is the time that its processors worked since the figures before, 100 for one that always did.
	CPUPercent *float64 `json:"cpu_percent,omitempty"`
	// HostMemory is what its monitor and supervisor have in the host's RAM, HostDisk what its disk takes there.
	HostMemory uint64 `json:"host_memory_bytes"`
	HostDisk   uint64 `json:"host_disk_bytes"`
}
