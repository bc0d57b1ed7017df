// Package supervisor is the one process per running VM: it owns the monitor, the link to the agent, the control socket, the
// published ports, the rule about its owner, and the VM's end.
//
// Layer: below lifecycle, which reaches it through supervisor/rpc only. It may import engine, guest/client, guest/proto,
// store, network/publish, supervisor/{idle,relay,rpc}, api, errdefs, internal/sys.
package supervisor

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// Deps are what a supervisor works with.
type Deps struct {
	Engines *engine.Registry
	Version api.Version
	// Verdicts says where it is kept which accelerators work; "" = engine.CacheDir().
	Verdicts string
}

// Main supervises the VM id until its end, and returns the process's exit code. It is what the hidden subcommand
// rpc.Command runs; lifecycle starts it.
func Main(ctx context.Context, id string, d Deps) int {
	// It mostly waits: memory matters more than the time to collect it.
	debug.SetGCPercent(25)
	debug.SetMemoryLimit(64 << 20)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("vm", id)
	in, err := inherit()
	if err != nil {
		log.Error("started by hand?", "error", err)
		return 2
	}
	s, err := newSupervisor(ctx, id, d, in, log)
	if err != nil {
		in.report(rpc.Report{Problem: problem(err)})
		log.Error("cannot start", "error", err)
		return 1
	}
	defer runtime.KeepAlive(in)
	if err := s.run(ctx); err != nil {
		log.Error("the VM failed", "error", err)
		return 1
	}
	return 0
}

func problem(err error) *errdefs.Problem {
	p := errdefs.ToProblem(err)
	return &p
}

// inherited is what lifecycle gave us. The locks are never closed: they are free when the process is gone, and not before.
type inherited struct {
	plan    rpc.Plan
	lock    *os.File
	leases  []*os.File
	ports   []*net.TCPListener // of plan.Ports
	reports *os.File
}

func inherit() (*inherited, error) {
	for _, fd := range []int{rpc.FDReport, rpc.FDPlan, rpc.FDLock} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, errdefs.Invalid.Errorf("descriptor %d is missing", fd).WithRemedy("smolvm start ID")
		}
		unix.CloseOnExec(fd)
	}
	in := &inherited{
		reports: os.NewFile(rpc.FDReport, "report"),
		lock:    os.NewFile(rpc.FDLock, "lock"),
	}
	plan := os.NewFile(rpc.FDPlan, "plan")
	defer func() { _ = plan.Close() }()
	if err := json.NewDecoder(io.LimitReader(plan, 4<<20)).Decode(&in.plan); err != nil {
		return nil, errdefs.Internal.Errorf("the plan: %w", err)
	}
	for i := range in.plan.Leases {
		unix.CloseOnExec(rpc.FDLease + i)
		in.leases = append(in.leases, os.NewFile(uintptr(rpc.FDLease+i), "lease"))
	}
	return in, in.inheritPorts()
}

// inheritPorts makes listeners of the descriptors after the leases.
func (in *inherited) inheritPorts() error {
	for i := range in.plan.Ports {
		f := os.NewFile(uintptr(rpc.FDLease+in.plan.Leases+i), "port")
		l, err := net.FileListener(f) // a copy, which no child of ours gets
		_ = f.Close()
		tcp, ok := l.(*net.TCPListener)
		if err != nil || !ok {
			return errdefs.Internal.Errorf("the listener of port %s: %w", in.plan.Ports[i], err)
		}
		in.ports = append(in.ports, tcp)
	}
	return nil
}

// report tells who started us. He may have gone; then nobody needs to know.
func (in *inherited) report(r rpc.Report) {
	if in.reports == nil {
		return
	}
	_ = json.NewEncoder(in.reports).Encode(r)
	if r.Ready || r.Problem != nil {
		_ = in.reports.Close()
		in.reports = nil
	}
}

// checkStart refuses a record that lifecycle did not prepare.
func checkStart(r store.Record) error {
	if r.State.State != api.StateStarting {
		return errdefs.WrongState.Errorf("the VM is %s, not starting", r.State.State)
	}
	return nil
}
