package lifecycle

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/bootfile"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/publish"
	"github.com/smolvm/smolvm/internal/network/secret"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/cacert"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/fault"
	"github.com/smolvm/smolvm/internal/sys/lock"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// Start boots a VM that has no secrets, and returns when its agent is configured.
func (m *Manager) Start(ctx context.Context, id string, progress api.ProgressFunc) (api.Sandbox, error) {
	return m.StartWith(ctx, id, nil, progress)
}

// StartWith boots a VM with the values of its secrets, which are kept nowhere but in its processes.
func (m *Manager) StartWith(ctx context.Context, id string, values api.SecretValues, progress api.ProgressFunc) (api.Sandbox, error) {
	begun := time.Now()
	m.sweep()
	rec, err := m.settle(ctx, id)
	if err != nil {
		return api.Sandbox{}, err
	}
	if err := store.CanFollow(id, rec.State.State, api.StateStarting); err != nil {
		return api.Sandbox{}, err
	}
	if err := m.startLocked(ctx, id, values, progress); err != nil {
		return api.Sandbox{}, err
	}
	rec, err = m.store.Read(id)
	if err != nil {
		return api.Sandbox{}, err
	}
	m.log.Debug("running", "vm", id, "accelerator", rec.State.Accelerator, "kernel", rec.State.KernelRelease, "took", time.Since(begun))
	return m.sandbox(rec, false), nil
}

// startLocked takes the lock, which the supervisor then has, and waits for the supervisor's word.
func (m *Manager) startLocked(ctx context.Context, id string, values api.SecretValues, progress api.ProgressFunc) error {
	l, err := m.lockIdle(ctx, id, api.StateStarting)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	rec, err := m.settleLocked(ctx, id)
	if err == nil {
		err = store.CanFollow(id, rec.State.State, api.StateStarting)
	}
	if err != nil {
		return err
	}
	if _, err := secret.Match(id, rec.Config.Config.Secrets, values); err != nil {
		return err
	}
	boot, err := m.prepare(ctx, rec)
	if err != nil {
		return err
	}
	defer boot.close()
	boot.plan.Secrets = values
	if err := m.takePorts(ctx, rec, boot); err != nil {
		return err
	}
	st, err := m.markStarting(ctx, rec)
	if err != nil {
		return err
	}
	fault.Point("start.saved")
	sup, err := m.spawn(ctx, id, l, boot)
	if err != nil {
		st.State, st.Reason = api.StateError, err.Error()
		if serr := m.save(id, st); serr != nil {
			m.log.Warn("the record does not tell of the failed start", "vm", id, "error", serr)
		}
		return err
	}
	fault.Point("start.spawned")
	_ = l.Close() // the supervisor's copy holds it
	return m.await(ctx, id, sup, progress)
}

// markStarting writes down that the VM starts, if the host has room for it. From then on it counts for others.
func (m *Manager) markStarting(ctx context.Context, rec store.Record) (store.State, error) {
	release, err := m.reserve(ctx, rec)
	if err != nil {
		return store.State{}, err
	}
	defer release()
	st := rec.State
	if st.BootID, err = store.HostBootID(); err != nil {
		return store.State{}, err
	}
	st.State, st.Reason, st.Supervisor, st.Engine = api.StateStarting, "", nil, nil
	return st, m.save(rec.Config.Config.ID, st)
}

// bootFiles are what a supervisor gets of the cache, and the lease that keeps it there.
type bootFiles struct {
	plan  rpc.Plan
	lease image.Lease
	ports []*os.File // listeners
}

func (b *bootFiles) close() {
	_ = b.lease.Close()
	publish.Drop(b.ports)
}

// prepare finds what the VM boots from and keeps it from being removed.
func (m *Manager) prepare(ctx context.Context, rec store.Record) (*bootFiles, error) {
	c := rec.Config
	src := bootfile.Source{ImageDigest: c.ImageDigest, KernelID: c.KernelID, RootfsMark: c.RootfsMark, KernelMark: c.KernelMark}
	boot, err := bootfile.Prepare(ctx, m.opts.Images, c.Config, src, rec.State.StartedAt == nil, m.opts.Agent)
	if err != nil {
		return nil, err
	}
	var roots [][]byte
	if !c.Config.NoHostCAs {
		roots = cacert.Find(m.opts.Roots, m.log)
	}
	return &bootFiles{lease: boot.Lease, plan: rpc.Plan{
		Home: m.store.Home(), Leases: len(boot.Lease.Files()), KernelID: boot.KernelName,
		Kernel: boot.Kernel, Initrd: boot.Initrd, Modules: boot.Modules, Image: boot.Rootfs,
		Roots: roots,
	}}, nil
}

// spawned is a supervisor that was started.
type spawned struct {
	child   *child.Child
	reports *os.File
}

// spawn starts a supervisor, in a session of its own, with the lock.
func (m *Manager) spawn(ctx context.Context, id string, l *lock.Lock, boot *bootFiles) (*spawned, error) {
	var back undo.Stack
	defer back.Run()
	reports, theirs, err := os.Pipe()
	if err != nil {
		return nil, errdefs.Host.Errorf("make a pipe: %w", err)
	}
	back.Add(func() { _ = reports.Close() })
	defer func() { _ = theirs.Close() }()
	plan, err := boot.plan.File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = plan.Close() }()
	log, err := os.OpenFile(m.store.Path(id, store.SupervisorLogFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, errdefs.Host.Errorf("make the supervisor's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	// It outlives us, and the call.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe")
	cmd.Args = []string{"smolvm", rpc.Command, id}
	// It may know what steers SmolVM, where its cache is, and which way out the host has.
	env := child.Environ(append(child.Named("SMOLVM_"), append(control.Environment(), "XDG_CACHE_HOME", "TMPDIR")...)...)
	cmd.Env = append(env, "SMOLVM_HOME="+m.store.Home()) // where engines are installed
	cmd.Stderr = log
	cmd.ExtraFiles = slices.Concat([]*os.File{theirs, plan, l.File()}, boot.lease.Files(), boot.ports)
	c, err := child.StartDetached(cmd)
	if err != nil {
		return nil, errdefs.Host.Errorf("start a supervisor: %w", err)
	}
	back.Release()
	m.log.Debug("the supervisor has started", "vm", id, "pid", cmd.Process.Pid, "log", log.Name())
	return &spawned{child: c, reports: reports}, nil
}

// startEnd bounds the wait for a supervisor that was told to end, or that said that it failed.
const startEnd = 15 * time.Second

// await passes progress on until the VM runs. When ctx ends, so does the VM.
func (m *Manager) await(ctx context.Context, id string, sup *spawned, progress api.ProgressFunc) error {
	defer func() { _ = sup.reports.Close() }()
	stop := context.AfterFunc(ctx, func() {
		_ = sup.child.Signal(syscall.SIGTERM)
		_ = sup.reports.SetReadDeadline(time.Now().Add(startEnd))
	})
	err := rpc.ReadReports(sup.reports, func(p api.Progress) {
		m.log.Debug("the supervisor reports", "vm", id, "stage", p.Stage, "detail", p.Detail)
		if progress != nil {
			progress(p)
		}
	})
	if stop() && err == nil {
		return nil
	}
	if err == nil { // it was ready in the moment when we told it to end
		err = context.Cause(ctx)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	select {
	case <-sup.child.Done():
	case <-time.After(startEnd):
		sup.child.Kill()
	}
	if serr := m.settleStart(ctx, id); serr != nil && !errdefs.Is(serr, errdefs.NotFound) {
		m.log.Warn("the record is not settled", "vm", id, "error", serr)
	}
	if errors.Is(err, io.EOF) {
		err = errdefs.Internal.Errorf("%w: %s", err, m.store.LastWords(id)).WithRemedy("smolvm start %s", id)
	}
	return err
}

// settleStart settles a start that came to nothing. One that was given up by its caller may have ended before its supervisor
// could write that down.
func (m *Manager) settleStart(ctx context.Context, id string) error {
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	l, err := m.waitLock(clean, id, endingWait)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // another smolvm is at work on it
	}
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	asked := ""
	if ctx.Err() != nil {
		asked = "stopped while it was starting: " + context.Cause(ctx).Error()
	}
	_, err = m.settleEnded(clean, id, asked)
	return err
}
