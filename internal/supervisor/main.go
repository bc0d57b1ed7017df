// Package supervisor is the one process per running VM: it owns the monitor, the link to the agent, the control socket, the
// published ports, the rule about its owner, and the VM's end.
//
// Layer: below lifecycle, which reaches it through supervisor/rpc only. It may import engine, guest/client, guest/proto,
// store, network/publish, and the packages below it, api, errdefs, internal/sys.
package supervisor

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/inherit"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/nodump"
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
	if err := nodump.Forbid(); err != nil { // it has secrets
		log.Warn("a crash may leave a core dump", "error", err)
	}
	in, err := inherit.Take()
	if err != nil {
		log.Error("started by hand?", "error", err)
		return 2
	}
	s, err := newSupervisor(ctx, id, d, in, log)
	if err != nil {
		in.Report(rpc.Report{Problem: problem(err)})
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

// checkStart refuses a record that lifecycle did not prepare.
func checkStart(r store.Record) error {
	if r.State.State != api.StateStarting {
		return errdefs.WrongState.Errorf("the VM is %s, not starting", r.State.State)
	}
	return nil
}
