// Package inherit takes what lifecycle gives a supervisor by descriptors: the plan, locks, listeners, and the pipe for reports.
//
// Layer: part of supervisor. It may import supervisor/rpc, errdefs.
package inherit

import (
	"encoding/json"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// Inherited is what there was. The locks are never closed: they are free when the process is gone, and not before.
type Inherited struct {
	Plan  rpc.Plan
	Lock  *os.File
	Ports []*net.TCPListener // of Plan.Ports

	leases  []*os.File
	reports *os.File
}

// Take takes it. The file in memory that the plan came in is gone afterwards.
func Take() (*Inherited, error) {
	for _, fd := range []int{rpc.FDReport, rpc.FDPlan, rpc.FDLock} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, errdefs.Invalid.Errorf("descriptor %d is missing", fd).WithRemedy("smolvm start ID")
		}
		unix.CloseOnExec(fd)
	}
	in := &Inherited{
		reports: os.NewFile(rpc.FDReport, "report"),
		Lock:    os.NewFile(rpc.FDLock, "lock"),
	}
	plan := os.NewFile(rpc.FDPlan, "plan")
	defer func() { _ = plan.Close() }()
	if err := json.NewDecoder(io.LimitReader(plan, 4<<20)).Decode(&in.Plan); err != nil {
		return nil, errdefs.Internal.Errorf("the plan: %w", err)
	}
	for i := range in.Plan.Leases {
		unix.CloseOnExec(rpc.FDLease + i)
		in.leases = append(in.leases, os.NewFile(uintptr(rpc.FDLease+i), "lease"))
	}
	return in, in.takePorts()
}

// takePorts makes listeners of the descriptors after the leases.
func (in *Inherited) takePorts() error {
	for i := range in.Plan.Ports {
		f := os.NewFile(uintptr(rpc.FDLease+in.Plan.Leases+i), "port")
		l, err := net.FileListener(f) // a copy, which no child of ours gets
		_ = f.Close()
		tcp, ok := l.(*net.TCPListener)
		if err != nil || !ok {
			return errdefs.Internal.Errorf("the listener of port %s: %w", in.Plan.Ports[i], err)
		}
		in.Ports = append(in.Ports, tcp)
	}
	return nil
}

// Report tells who started us. He may have gone; then nobody needs to know.
func (in *Inherited) Report(r rpc.Report) {
	if in.reports == nil {
		return
	}
	_ = json.NewEncoder(in.reports).Encode(r)
	if r.Ready || r.Problem != nil {
		_ = in.reports.Close()
		in.reports = nil
	}
}
