package rpc

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Command is the hidden subcommand under which the program must call supervisor.Main, with the VM's id.
const Command = "supervise"

// The descriptors with which a supervisor is started.
const (
	FDReport = 3 // where it tells how its start goes; closed by it afterwards
	FDPlan   = 4 // the Plan as JSON
	FDLock   = 5 // the VM's lock
	FDLease  = 6 // the first of the locks on image and kernel
)

// Plan is what a supervisor cannot read in the VM's record: where in the cache its files are. The locks that keep them there
// are inherited.
type Plan struct {
	Home     string `json:"home"`
	Leases   int    `json:"leases"` // how many descriptors follow FDLease
	Kernel   string `json:"kernel"` // paths
	Initrd   string `json:"initrd"`
	Modules  string `json:"modules"`
	Image    string `json:"image"`
	KernelID string `json:"kernel_id"`
	// Ports are those whose listeners follow the leases.
	Ports []api.Port `json:"ports,omitempty"`
	// Roots are the host's own certificate authorities, DER.
	Roots [][]byte `json:"roots,omitempty"`
	// Secrets are values, which are nowhere but in memory: here, in the supervisor and in the gateway.
	Secrets api.SecretValues `json:"secrets,omitempty"`
}

// File is a file in memory with the plan, at its beginning.
func (p Plan) File() (*os.File, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, errdefs.Internal.Errorf("the supervisor's plan: %w", err)
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, errdefs.Host.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "plan") //nolint:gosec // a descriptor
	if _, err := f.WriteAt(b, 0); err != nil {
		_ = f.Close()
		return nil, errdefs.Host.Errorf("write the supervisor's plan: %w", err)
	}
	return f, nil
}

// Report is one line on FDReport. The last one has Ready or Problem.
type Report struct {
	Progress *api.Progress    `json:"progress,omitempty"`
	Ready    bool             `json:"ready,omitempty"`
	Problem  *errdefs.Problem `json:"problem,omitempty"`
}

// ReadReports passes progress on until the start has succeeded or failed. What ends without a word is an error of class
// internal.
func ReadReports(r io.Reader, progress api.ProgressFunc) error {
	dec := json.NewDecoder(r)
	for {
		var line Report
		if err := dec.Decode(&line); err != nil {
			return errdefs.Internal.Errorf("the supervisor ended while it started: %w", err)
		}
		switch {
		case line.Problem != nil:
			return line.Problem.Err()
		case line.Ready:
			return nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}
