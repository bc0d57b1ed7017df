package supervisor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/diagnose"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
	"github.com/smolvm/smolvm/internal/sys/fault"
)

// How long a guest may take to its hello.
const (
	bootAccelerated = 60 * time.Second
	bootEmulated    = 300 * time.Second
	bootUnproven    = 10 * time.Second // with an accelerator that never ran a guest of ours
)

// boot starts the machine, and returns when its agent is configured. On an error no machine is left.
func (s *supervisor) boot(ctx context.Context) (err error) {
	ways, err := s.deps.Engines.Choose(ctx, s.config.Config.Engine)
	if err != nil {
		return err
	}
	spec, err := s.spec()
	if err != nil {
		return err
	}
	if err := s.startNetwork(ctx, spec.UID); err != nil {
		return err
	}
	b := &booting{s: s, ways: ways, spec: spec, verdicts: s.verdicts()}
	if err := b.any(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			b.drop(ctx)
		}
	}()
	// The gateway started beside the guest. Without it, there is no VM: nobody would know why it reaches nothing.
	if err := cmp.Or(s.secrets.Attach(ctx, s.uplink), s.policy.attach(ctx, s.uplink), s.confined("gateway", s.uplink.Missing())); err != nil {
		return err
	}
	fault.Point("supervise.hello", b.machine.Handle().PID)
	if err := s.configure(ctx, b.guest); err != nil {
		return s.withConsole(err)
	}
	err = s.nowRunning(b)
	fault.Point("supervise.running", b.machine.Handle().PID)
	return err
}

func (s *supervisor) verdicts() *engine.Verdicts {
	dir := s.deps.Verdicts
	if dir == "" {
		dir = engine.CacheDir()
	}
	return engine.NewVerdicts(dir)
}

// configure tells the guest who it is.
func (s *supervisor) configure(ctx context.Context, guest *client.Client) error {
	if guest.Hello().GetConfigured() {
		return errdefs.Engine.Errorf("the guest says that it is configured before we did so")
	}
	ctx, cancel := context.WithTimeout(ctx, bootEmulated)
	defer cancel()
	seed := make([]byte, 64)
	_, _ = rand.Read(seed) // never fails
	cfg := s.config.Config
	roots, err := client.Authorities(append(slices.Clip(s.in.Plan.Roots), s.uplink.Authority()))
	if err != nil {
		return err
	}
	_, err = guest.Configure(ctx, &proto.ConfigureRequest{
		Identity:    &proto.Identity{Id: s.id, Hostname: api.Hostname(s.id), MachineId: s.config.DiskUUID},
		Env:         cfg.Env,
		Workdir:     cfg.Workdir,
		User:        cfg.User,
		WallClockNs: time.Now().UnixNano(),
		Seed:        seed,
		DiskUuid:    s.config.DiskUUID,
		Authorities: roots,

		AuthorizedKeys: cfg.AuthorizedKeys,

		MaxProcesses: uint32(cfg.MaxProcesses),
		OutputBytes:  uint32(mib(cfg.OutputMiB, api.DefaultOutputMiB)),
		Network: &proto.Network{
			Address: control.Guest().String(), Gateway: control.Gateway().String(), Dns: control.Gateway().String(), Mtu: control.MTU,
		},
	})
	return err
}

// nowRunning writes down what runs.
func (s *supervisor) nowRunning(b *booting) error {
	s.relay.Attach(b.guest, b.machine.DialGuest)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC()
	err := s.saveLocked(func(st *store.State) {
		st.State, st.Reason, st.StartedAt, st.StoppedAt = api.StateRunning, "", &now, nil
		st.Renew()
		st.Accelerator = b.way.Accel.Name
		if b.way.Accel.Emulated {
			st.Accelerator += " (emulated: no security boundary)"
		}
		st.KernelRelease = excerpt.Printable(excerpt.Cut(b.guest.Hello().GetKernelRelease(), 128))
	})
	if err == nil {
		s.machine = b.machine
	}
	return err
}

// recordMonitor writes down which process runs the VM, so that it is found even if nothing holds the lock for it.
func (s *supervisor) recordMonitor(m engine.Machine) error {
	handle, err := json.Marshal(m.Handle())
	if err != nil {
		return errdefs.Internal.Errorf("the engine's handle: %w", err)
	}
	return s.save(func(st *store.State) { st.Engine = handle })
}

// bound puts the monitor into its control group, if it did not begin there.
func (s *supervisor) bound(m engine.Machine) error {
	pid := m.Handle().PID
	if s.group == nil || pid == 0 {
		return nil
	}
	if err := s.group.Add(pid); err != nil {
		return errdefs.Host.Errorf("put the monitor %d into its control group: %w", pid, err).WithRemedy("smolvm doctor")
	}
	return nil
}

// confined refuses what a wall is missing around, where all are asked for.
func (s *supervisor) confined(what string, missing []string) error {
	if !s.config.Config.RequireConfinement || len(missing) == 0 {
		return nil
	}
	return errdefs.Denied.Errorf("the VM's %s would not be wholly confined: %s", what, strings.Join(missing, "; ")).WithRemedy("smolvm doctor; without --require-confinement it goes without")
}

// booting tries one accelerator after the other.
type booting struct {
	s        *supervisor
	ways     []engine.Candidate
	spec     engine.Spec
	verdicts *engine.Verdicts

	way     engine.Candidate // the one that is tried
	machine engine.Machine
	guest   *client.Client
}

// any starts with the best accelerator that works.
func (b *booting) any(ctx context.Context) error {
	require, ways := b.s.config.Config.RequireAccel, b.ways
	if require { // what is refused is nothing to go on with
		ways = slices.DeleteFunc(slices.Clone(ways), func(way engine.Candidate) bool { return way.Accel.Emulated })
	}
	var missing []string
	told := false
	for i, way := range ways {
		b.way = way
		a, last := way.Accel, i == len(ways)-1
		if a.Missing != "" {
			missing = append(missing, strings.TrimSuffix(fmt.Sprintf("%s: %s (%s)", b.way, a.Missing, a.Remedy), " ()"))
			continue
		}
		trial := engine.Trial{Engine: b.way.Engine.Name(), Build: b.way.Caps.Build, Accel: a.Name, Kernel: b.s.in.Plan.KernelID, UID: os.Geteuid()}
		verdict, known := b.verdicts.Lookup(trial)
		if a.Emulated {
			if !known && len(missing) > 0 {
				why := strings.Join(missing, "; ")
				if !told {
					b.s.tell(api.StageAccelerator, "the VM is emulated, which is slower and no security boundary: "+why)
				}
				b.keep(trial, engine.Verdict{Usable: true, Evidence: excerpt.Cut("for want of "+why, 500)})
			}
			verdict, known = engine.Verdict{Usable: true}, true // it always works
		}
		if known && !verdict.Usable {
			missing = append(missing, fmt.Sprintf("%s: does not run our kernel (%s)", b.way, verdict.Evidence))
			continue
		}
		begun, limit := time.Now(), b.timeout(a, known || last) // there is nothing to go on with after the last
		tells, err := b.one(ctx, a, limit)
		if err == nil {
			if !known {
				b.keep(trial, engine.Verdict{Usable: true, Evidence: fmt.Sprintf("hello after %.1f s", time.Since(begun).Seconds())})
			}
			return nil
		}
		if !tells || known || ctx.Err() != nil || limit < bootUnproven { // in less it proves nothing
			return err
		}
		evidence := excerpt.Cut(excerpt.Printable(strings.ReplaceAll(err.Error(), "\n", " ")), 500)
		b.keep(trial, engine.Verdict{Evidence: evidence})
		missing = append(missing, fmt.Sprintf("%s: does not run our kernel (%s)", b.way, evidence))
		told = true
		b.s.tell(api.StageAccelerator, fmt.Sprintf("%s is there but does not run our kernel (%s); going on without it", b.way, evidence))
		b.s.note(api.Event{Type: "accelerator", Reason: missing[len(missing)-1]})
	}
	err := errdefs.Host.Errorf("no hardware acceleration is usable: %s", cmp.Or(strings.Join(missing, "; "), "the engine offers none here"))
	if require {
		return err.WithRemedy("smolvm doctor; without --require-accel the VM is emulated, which is no security boundary")
	}
	return err.WithRemedy("smolvm doctor")
}

func (b *booting) keep(t engine.Trial, v engine.Verdict) {
	v.Time = time.Now().UTC()
	if err := b.verdicts.Record(t, v); err != nil {
		b.s.log.Warn("the verdict on an accelerator is not kept", "error", err)
	}
}

func (b *booting) timeout(a engine.Accel, proven bool) time.Duration {
	if !proven {
		return bootUnproven
	}
	if ms := b.s.config.Config.BootTimeoutMs; ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	if a.Emulated {
		return bootEmulated
	}
	return bootAccelerated
}

// one starts a machine with one accelerator and waits for its agent's hello. On an error nothing of it is left; tells says whether
// that is one of the accelerator's.
func (b *booting) one(ctx context.Context, a engine.Accel, limit time.Duration) (tells bool, err error) {
	boot, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	spec := b.spec
	spec.Accel = a.Name
	closeSockets, err := b.s.sockets(&spec)
	if err != nil {
		return false, err
	}
	defer closeSockets()
	broken := make(chan string, 1)
	var booted atomic.Bool
	spec.Events = func(e engine.Event) {
		if e.Kind == engine.EventBroken && !booted.Load() { // of this attempt only
			select {
			case broken <- e.Detail:
			default:
			}
			return
		}
		select {
		case b.s.events <- e:
		default: // too many at once: some are lost
		}
	}
	b.s.tell("boot", "starting "+b.way.Engine.Name()+" "+b.way.Caps.Version+" with "+a.Name)
	if b.machine, err = b.way.Engine.Start(boot, spec); err != nil {
		return !errors.Is(err, engine.ErrKilled), err
	}
	if err := cmp.Or(b.s.recordMonitor(b.machine), b.s.bound(b.machine), b.s.confined("monitor", b.machine.Handle().Unconfined)); err != nil {
		b.drop(ctx)
		return false, err
	}
	fault.Point("supervise.monitor", b.machine.Handle().PID)
	if b.guest, err = b.hello(boot, broken); err == nil {
		booted.Store(true)
		return true, nil
	}
	b.drop(ctx)
	if errors.Is(err, errKilled) {
		return false, err
	}
	if boot.Err() != nil && ctx.Err() == nil {
		err = errdefs.Timeout.Errorf("no hello from the guest's agent within %s", limit)
	}
	return true, b.s.withConsole(err)
}

// Why there will be no hello.
var (
	errEnded  = errors.New("it ended before its agent said hello")
	errKilled = errors.New("it was killed before its agent said hello")
)

// hello waits for the agent, or for what makes waiting vain.
func (b *booting) hello(ctx context.Context, broken <-chan string) (*client.Client, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	machine := b.machine
	go func() {
		exit, err := machine.Wait(ctx)
		if err == nil {
			o := (&ending{}).outcome(exit, b.s.console.Tail(8<<10))
			why := errEnded
			if exit.Kind == engine.ExitKilled && exit.Signal == unix.SignalName(unix.SIGKILL) { // no fault of its own does that
				why = errKilled
			}
			cancel(errdefs.Engine.Errorf("%w: %s", why, o.reason))
		}
	}()
	go func() {
		select {
		case detail := <-broken:
			cancel(errdefs.Engine.Errorf("the monitor cannot run the guest: %s", detail))
		case <-ctx.Done():
		}
	}()
	guest, err := client.New(ctx, machine.DialGuest)
	if err == nil {
		return guest, nil
	}
	select { // whoever dials may be the first to see that the monitor ends, and does not know how
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(time.Second):
	}
	return nil, err
}

// drop ends a machine that is not to be.
func (b *booting) drop(ctx context.Context) {
	if b.guest != nil {
		_ = b.guest.Close()
	}
	if b.machine == nil {
		return
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := b.machine.Stop(stop, 0); err != nil {
		b.s.log.Error("end a machine that did not boot", "error", err)
	}
	b.machine, b.guest = nil, nil
}

// withConsole adds the end of the console to a failed boot's error, and what it says of the kernel.
func (s *supervisor) withConsole(err error) error {
	return diagnose.Failed(err, s.id, s.console.Tail(16<<10))
}
