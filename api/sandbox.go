package api

import "time"

// Sandbox is a VM as it is seen from outside: what `inspect` and `ls` show.
type Sandbox struct {
	ID     string `json:"id"`
	State  State  `json:"state" enum:"created,starting,running,paused,stopping,stopped,hibernated,deleting,error,broken"`
	Reason string `json:"reason"` // why it is in this state, e.g. "guest powered off"
	Owner  Owner  `json:"owner"`

	Config Config `json:"config"` // env values are masked unless asked for

	SupervisorPID int    `json:"supervisor_pid"`
	VMMPID        int    `json:"vmm_pid"`
	Engine        string `json:"engine"`                   // "qemu 7.2.22"
	Accelerator   string `json:"accelerator"`              // "tcg (emulated: no security boundary)", "kvm"
	Confinement   string `json:"confinement"`              // what is in force, e.g. "uid 1900000007, netns, landlock 6, seccomp"
	ImageDigest   string `json:"image_digest,omitempty"`   // what Config.Image meant when the VM was created
	KernelID      string `json:"kernel_id,omitempty"`      // of the kernel in the cache that it boots
	KernelRelease string `json:"kernel_release,omitempty"` // of the guest

	// Network is the policy in force, or that of the next start.
	Network NetworkPolicy `json:"network"`

	// Ports are those that are published, or will be at the next start.
	Ports []Port `json:"ports"`

	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	StoppedAt *time.Time `json:"stopped_at,omitempty"`
	// ExpiresAt is when its time to live is over, while it runs.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`

	Dir string `json:"dir,omitempty"` // where its files are
}

// Event is one line of a VM's events.jsonl.
type Event struct {
	Time   time.Time         `json:"time"`
	VM     string            `json:"vm,omitempty"` // in listings of several
	Type   string            `json:"type"`         // "state", "exec", "disk-error", "accelerator", …; in listings also "removed"
	State  State             `json:"state,omitempty"`
	Reason string            `json:"reason,omitempty"`
	Attrs  map[string]string `json:"attrs,omitempty"`
}

// Progress is one step of something that takes longer than a second. Total 0 means unknown.
type Progress struct {
	Stage  string `json:"stage"`            // "kernel", "packages", "filesystem", …
	Detail string `json:"detail,omitempty"` // a human sentence
	Done   int64  `json:"done,omitempty"`
	Total  int64  `json:"total,omitempty"`
}

// StageAccelerator is the stage of what is told once, and is to stay on a terminal: that a VM runs without hardware acceleration, and why.
const StageAccelerator = "accelerator"

// ProgressFunc receives progress; it must not block and may be nil where it is a parameter.
type ProgressFunc func(Progress)

// PruneOptions say what may go besides images and kernels that were replaced and that no VM was made from.
type PruneOptions struct {
	All bool // images with a name too
	VMs bool // and VMs that do not run, with their disks
}

// Leftover is something that nobody needs any more.
type Leftover struct {
	Kind  string `json:"kind"` // "image", "built", "kernel" or "vm"
	Name  string `json:"name"`
	Why   string `json:"why"`
	Bytes int64  `json:"bytes"` // that it takes on the disk
}
