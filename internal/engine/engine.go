// Package engine is the contract between SmolVM and what runs a microVM: a small interface that every driver implements,
// optional powers found by type assertion, and plain facts in between. Drivers live in folders below; each passes the
// suite in enginetest. Nothing above this package names Firecracker or QEMU.
//
// Layer: engine. It may import errdefs, internal/sys and internal/guest/link.
package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Engine starts machines. Its methods may be called at once from several goroutines.
type Engine interface {
	// Name is the driver's stable name, "qemu".
	Name() string
	// Probe finds the monitor and tells what it can do here. It starts no machine. An error is of class host (not
	// installed, too old: named with the remedy).
	Probe(ctx context.Context) (Caps, error)
	// Start makes a machine of spec and returns once its monitor answers; the guest's kernel may still be booting. ctx
	// bounds the call, not the machine. On error nothing is left. Start duplicates the descriptors that it needs: the
	// caller keeps and closes those in spec.
	Start(ctx context.Context, spec Spec) (Machine, error)
}

// Machine is a virtual machine whose monitor was started.
type Machine interface {
	// Handle says what runs it, for records and recovery.
	Handle() Handle
	// Wait returns how the machine ended, once its monitor is gone and reaped. Any number of callers may wait.
	Wait(ctx context.Context) (Exit, error)
	// Stop ends the machine: it waits up to grace for an end that is already under way (the agent powers the guest off),
	// then kills. grace 0 kills at once. It returns when the monitor is gone. Stopping a machine that has ended is no error.
	Stop(ctx context.Context, grace time.Duration) error
	// DialGuest returns a fresh stream to the agent at its first byte and ends the former one: at most one lives per
	// machine. It waits, until ctx ends, for a guest that is still booting.
	DialGuest(ctx context.Context) (net.Conn, error)
}

// Pauser is the power to stop the virtual CPUs and let them go on.
type Pauser interface {
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
}

// Snapshotter is the power of a machine that was paused to write down all that it is but the content of its drives.
type Snapshotter interface {
	// Snapshot writes into dir, which exists and is empty; on error nothing is left there. The machine stays paused, so that
	// the caller can copy its writable drives before it goes on: the two belong together. A snapshot holds the guest's memory,
	// its secrets too. The guest may take what follows for a restore, and end its connections: see Restorer.
	Snapshot(ctx context.Context, dir string) error
}

// Restorer is the power of an engine to make machines that go on where a snapshot of its own was taken, any number of them
// and at once. They share its memory until they write to it, so that its files must stay as they are.
type Restorer interface {
	// Restore makes a machine, which is paused (see Pauser). spec says what it has: the same as the snapshot's machine, each
	// writable drive with a copy of the content that belongs to the snapshot. Kernel, Initrd and Cmdline are not looked at.
	// Whatever was connected with the guest is not any more, and what is connected before it knows that it was restored may be
	// dead without a word: who hears nothing dials again. On error nothing is left.
	//
	// Two machines of one snapshot think that they are the same, down to the random numbers that they will draw, until their
	// agents are told otherwise.
	Restore(ctx context.Context, spec Spec, dir string) (Machine, error)
}

// BlockStatser is the power to tell what the guest did to its drives since it was started.
type BlockStatser interface {
	BlockStats(ctx context.Context) (map[string]BlockStats, error)
}

// BlockStats counts a drive's requests, by the drive's ID.
type BlockStats struct {
	ReadBytes, WriteBytes, Reads, Writes, Flushes uint64
}

// Caps is what an engine can do on this host.
type Caps struct {
	Version string // of the monitor, "7.2.22"
	Path    string // of its program
	Build   string // changes whenever the program does: keys verdicts and templates
	Tested  bool   // Version is one that the suite ran on
	// Accels are the accelerators to try, best first. The last one always works.
	Accels []Accel
}

// Accel is a way to run guest code.
type Accel struct {
	Name     string // "kvm", "tcg"
	Emulated bool   // no hardware isolation
	// Missing says why it cannot even be tried ("/dev/kvm: permission denied"), with the remedy; "" means try it.
	Missing string
	Remedy  string
}

// Spec is a machine in plain facts. Descriptors are open files of the caller's.
type Spec struct {
	Name      string // for the process title and logs; says nothing to the guest
	CPUs      int
	MemoryMiB int
	Accel     string // one of Caps.Accels' names

	Kernel  *os.File // vmlinux, read only
	Initrd  *os.File // read only, of whole pages (see InitrdAlign)
	Cmdline string   // what the guest's kernel gets; the driver adds what its machine needs

	Drives []Drive // in the order in which the guest sees them
	NIC    *NIC

	// AgentListener is a listening unix socket made by the caller, AgentPath where it is bound: DialGuest connects there.
	// Engines with a native guest socket (vsock) use AgentPath alone.
	AgentListener *os.File
	AgentPath     string

	// Console receives what the guest prints on its console. The driver reads as fast as the guest writes and never holds
	// more than 64 KiB; the writer bounds what is kept.
	Console io.Writer
	// Inherit are descriptors that the monitor must hold until it ends (the VM's lock).
	Inherit []*os.File
	// UID is the user id that the monitor runs as where we are root (see Confinement); 0 = keep ours.
	UID uint32
	// Group is the control group in which the monitor begins; nil = ours. Where the kernel does not have it so, it begins in ours.
	Group *os.File
	// MaxFileBytes is the largest size to which the monitor may grow a file (RLIMIT_FSIZE); 0 = no limit.
	MaxFileBytes int64
	// Events receives what happens to the machine; it must not block. May be nil.
	Events func(Event)
}

// ErrKilled is in an error of Start where somebody killed the monitor (SIGKILL) before it ran the guest: that tells nothing about its
// accelerator.
var ErrKilled = errors.New("the monitor was killed")

// MaxMemory is how much memory of its own the monitor may have (RLIMIT_DATA): the guest's, and more than it ever needs for itself. The
// stacks of its threads are in it, and the code that an emulator translates.
func (s *Spec) MaxMemory() int64 { return int64(s.MemoryMiB+1024+16*s.CPUs) << 20 }

// Drive is a raw disk image.
type Drive struct {
	ID string // "image", "disk", "modules": the guest sees it as the drive's serial
	// File is open for reading, or for reading and writing where ReadOnly is false.
	File     *os.File
	ReadOnly bool
	// Limit bounds what the guest may do to it; the guest waits.
	Limit IOLimit
	// Disposable says that nobody needs its content after a crash of the host: the guest's flushes do nothing.
	Disposable bool
}

// IOLimit is a drive's rate, reads and writes together. 0 = no limit.
type IOLimit struct {
	BytesPerSecond int64
	OpsPerSecond   int64
}

// NIC is the one network card. FD is the monitor's end of a datagram socket pair, one Ethernet frame per datagram.
//
// An engine whose card is a TAP leaves FD alone, and hands the card's other end to Take before the guest runs: a packet
// socket, whose frames have a virtio_net_hdr in front. Take owns it; its error is Start's.
type NIC struct {
	FD   *os.File
	Take func(*os.File) error
	MAC  net.HardwareAddr
	MTU  int // offered to the guest
	// Unfiltered, in place of FD, is the monitor's own network with all that the host reaches, which the monitor is then not
	// kept from. Only benchmarks compare with it; archtest holds everybody else to FD.
	Unfiltered bool
}

// Handle names the process that runs a machine. It is kept in the VM's record.
type Handle struct {
	Version    int    `json:"version"`
	Engine     string `json:"engine"`
	EngineVer  string `json:"engine_version"`
	Accel      string `json:"accel"`
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"` // field 22 of /proc/PID/stat: tells a reused pid
	// Confinement says what holds the monitor, each measure by its name: "uid 1900000007", "netns", "landlock 6", "seccomp".
	Confinement []string `json:"confinement"`
	// Unconfined says which measures are missing and why.
	Unconfined []string `json:"unconfined,omitempty"`
}

// ExitKind says how a machine ended.
type ExitKind string

// The kinds of ends.
const (
	ExitPoweroff ExitKind = "poweroff" // the guest switched itself off
	ExitReboot   ExitKind = "reboot"   // the guest asked for a reset
	ExitPanic    ExitKind = "panic"    // the guest's kernel panicked
	ExitStopped  ExitKind = "stopped"  // Stop killed it
	ExitKilled   ExitKind = "killed"   // a signal that was not ours
	ExitFailed   ExitKind = "failed"   // the monitor gave up: Detail says why
)

// Exit is how a machine ended.
type Exit struct {
	Kind   ExitKind
	Code   int    // the monitor's exit code
	Signal string // that ended it, or ""
	Detail string // the last lines of the monitor's own error output, bounded
}

// EventKind says what an Event tells.
type EventKind string

// The kinds of events.
const (
	EventPaused    EventKind = "paused"
	EventResumed   EventKind = "resumed"
	EventReset     EventKind = "reset"
	EventPanic     EventKind = "panic"
	EventShutdown  EventKind = "shutdown"
	EventDiskError EventKind = "disk-error"
	// EventBroken: the monitor lives but cannot run the guest (an accelerator that fails on ordinary instructions).
	EventBroken EventKind = "broken"
)

// Event is something that happened to a machine.
type Event struct {
	Kind   EventKind
	Detail string
}
