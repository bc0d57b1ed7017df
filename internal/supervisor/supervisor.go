package supervisor

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/network/publish"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/idle"
	"github.com/smolvm/smolvm/internal/supervisor/inherit"
	"github.com/smolvm/smolvm/internal/supervisor/keyring"
	"github.com/smolvm/smolvm/internal/supervisor/lifespan"
	"github.com/smolvm/smolvm/internal/supervisor/relay"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/supervisor/uplink"
	"github.com/smolvm/smolvm/internal/sys/capfile"
	"github.com/smolvm/smolvm/internal/sys/cgroup"
	"github.com/smolvm/smolvm/internal/sys/fault"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// mib is a size of the configuration in bytes.
func mib(n, ifZero int) int64 { return int64(cmp.Or(n, ifZero)) << 20 }

// supervisor owns one VM.
type supervisor struct {
	id     string
	deps   Deps
	log    *slog.Logger
	in     *inherit.Inherited
	store  *store.Store
	config store.Config
	dir    *sockpath.Dir
	undo   undo.Stack // run at the end, whatever it is

	group   *cgroup.Group // of the monitor; nil where none can be had
	console *capfile.Writer
	server  *rpc.Server
	relay   *relay.Relay
	idle    *idle.Watch
	ports   *publish.Set
	ends    chan end          // what ends the VM; one at a time is looked at
	gone    chan struct{}     // closed when the VM's end is settled
	events  chan engine.Event // from the engine's callback
	life    *lifespan.Watch
	changes sync.Mutex // of the owner and the time to live
	envs    sync.Mutex // of the environment, for which a guest lets us wait
	policy  policy
	secrets *keyring.Ring
	uplink  *uplink.Uplink      // from the start of the boot on
	record  func(api.NetRecord) // the same

	mu      sync.Mutex
	state   store.State
	machine engine.Machine // nil before it runs and after its end
	outlog  *capfile.Writer
}

func newSupervisor(ctx context.Context, id string, d Deps, in *inherit.Inherited, log *slog.Logger) (*supervisor, error) {
	st, err := store.New(in.Plan.Home)
	if err != nil {
		return nil, err
	}
	rec, err := st.Read(id)
	if err == nil {
		err = checkStart(rec)
	}
	if err != nil {
		return nil, err
	}
	ticks, err := pidfd.StartTicks(os.Getpid())
	if err != nil {
		return nil, errdefs.Host.Errorf("when were we started: %w", err)
	}
	s := &supervisor{
		id: id, deps: d, log: log, in: in, store: st, config: rec.Config, state: rec.State,
		ends: make(chan end), gone: make(chan struct{}), events: make(chan engine.Event, 64),
	}
	s.policy.now = rec.Policy()
	if s.secrets, err = keyring.New(id, rec.Config.Config.Secrets, in.Plan.Secrets); err != nil {
		return nil, err
	}
	s.server = rpc.NewServer(ctx, rpc.Hello{ID: id, Build: d.Version.Version}, log)
	s.relay = relay.New(relay.Options{ID: id, Ready: s.ready, Ended: s.ended, Output: s.output, MainEnded: s.mainEnded})
	s.idle, s.life = s.newIdleWatch(), s.newLifespan()
	s.ports = s.newPorts()
	s.server.OnCall(s.counted)
	s.state.Supervisor = &store.Process{PID: os.Getpid(), StartTicks: ticks}
	return s, s.save(func(*store.State) {})
}

// run is the VM's life.
func (s *supervisor) run(ctx context.Context) error {
	defer s.undo.Run()
	fault.Point("supervise.begin")
	ctx, cancel := context.WithCancel(ctx)
	s.undo.Add(cancel)
	if err := s.open(ctx); err != nil {
		_ = s.settle(outcome{state: api.StateError, reason: err.Error()})
		s.in.Report(rpc.Report{Problem: problem(err)})
		return err
	}
	booted := make(chan error, 1)
	bootCtx, stopBoot := context.WithCancelCause(ctx)
	defer stopBoot(nil)
	go func() { booted <- s.boot(bootCtx) }()
	var why end
	var err error
	select {
	case err = <-booted:
	case why = <-s.ends:
		stopBoot(errdefs.Unavailable.Errorf("the start of the VM %s was ended: %s", s.id, why.reason))
		err = <-booted
	}
	if err != nil {
		return s.failed(err, why)
	}
	if err := s.follow(ctx, func() error { return nil }); err != nil { // a lease begins now
		s.log.Error("nobody watches the owner", "error", err)
	}
	s.in.Report(rpc.Report{Ready: true})
	go s.trim(ctx)
	s.ports.Serve(ctx)
	s.setExpiry(ctx, s.config.Config.TTLMs)
	s.idle.Arm(ctx)
	go s.relay.KeepClock(ctx, s.log)
	return s.live(ctx, why)
}

// failed settles a start that came to nothing.
func (s *supervisor) failed(err error, why end) error {
	o := outcome{state: api.StateError, reason: err.Error(), delete: why.delete}
	if why.asked() {
		o.state, o.reason = api.StateStopped, "stopped while it was starting: "+why.reason
	}
	serr := s.settle(o)
	s.in.Report(rpc.Report{Problem: problem(err)})
	why.answer(serr)
	s.hangUp()
	if why.asked() {
		return nil
	}
	return err
}

// open prepares what a start needs before there is a machine.
func (s *supervisor) open(ctx context.Context) error {
	var err error
	if s.dir, err = sockpath.Open(s.store.Dir(s.id)); err != nil {
		return errdefs.Host.Errorf("open the VM's directory: %w", err)
	}
	s.undo.Add(func() { _ = s.dir.Close() })
	if s.console, err = capfile.Create(s.store.Path(s.id, store.ConsoleFile), mib(s.config.Config.ConsoleMiB, api.DefaultConsoleMiB)); err != nil {
		return errdefs.Host.Errorf("make the console's log: %w", err)
	}
	s.undo.Add(func() { _ = s.console.Close() })
	l, err := s.dir.Listen(store.ControlSocket)
	if err != nil {
		return errdefs.Host.Errorf("make the control socket: %w", err)
	}
	s.handle()
	s.undo.Add(func() { _ = s.server.Close() })
	go func() {
		if err := s.server.Serve(l); err != nil {
			s.log.Error("the control socket failed", "error", err)
		}
	}()
	go s.watchSignals(ctx)
	go s.keepEvents(ctx)
	st := s.snapshot()
	return s.life.Follow(ctx, st.Rule().AtStart())
}

// watchSignals makes the usual signals an orderly end.
func (s *supervisor) watchSignals(ctx context.Context) {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(c)
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-c:
			go func() { _ = s.ask(ctx, end{reason: "the supervisor got " + sig.String(), grace: defaultGrace}) }()
		}
	}
}

// keepEvents writes down what the engine tells.
func (s *supervisor) keepEvents(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.events:
			if e.Kind != engine.EventPaused && e.Kind != engine.EventResumed { // our own doing, and told as states
				s.note(api.Event{Type: string(e.Kind), Reason: e.Detail})
			}
			if e.Kind == engine.EventBroken {
				go func() {
					_ = s.ask(ctx, end{reason: "the monitor cannot run the guest: " + e.Detail, kill: true, fail: true})
				}()
			}
		}
	}
}

// note adds to the VM's events; one that cannot be written is lost.
func (s *supervisor) note(e api.Event) {
	if err := s.store.AppendEvent(s.id, e); err != nil {
		s.log.Warn("an event is lost", "type", e.Type, "error", err)
	}
}

// snapshot is the state as it is now.
func (s *supervisor) snapshot() store.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// save changes the state and writes it; on an error it stays as it was.
func (s *supervisor) save(change func(*store.State)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saveLocked(change)
}

func (s *supervisor) saveLocked(change func(*store.State)) error {
	next := s.state
	change(&next)
	if err := s.store.SaveState(s.id, next); err != nil {
		return err
	}
	stepped := next.State != s.state.State
	s.state = next
	if stepped {
		s.note(api.Event{Type: "state", State: next.State, Reason: next.Reason})
	}
	return nil
}

// tell passes progress on to who waits for the start.
func (s *supervisor) tell(stage, detail string) {
	s.in.Report(rpc.Report{Progress: &api.Progress{Stage: stage, Detail: detail}})
}

// hangUp lets answers under way go out.
func (s *supervisor) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond) //nolint:forbidigo // the very end: nothing is left to inherit from
	defer cancel()
	_ = s.server.Shutdown(ctx)
}
