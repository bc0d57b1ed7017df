// Package uplink keeps a VM's gateway running: it holds both ends of the network card's wire, so that neither the monitor nor
// the guest notices more than a reset when the gateway dies, and starts another one with the same policy and names. While
// there is none, nothing passes.
//
// Layer: part of supervisor. It may import network/{authority,control,secret}, api, errdefs, internal/sys.
package uplink

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/network/authority"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// Options are what an Uplink works with.
type Options struct {
	// Names is the file that keeps the synthetic names.
	Names string
	// UID is the user that a gateway becomes, which only root can give; 0: it stays ours.
	UID uint32
	// Wire is the gateway's end of a wire that somebody else made, such as a TAP; it is the Uplink's from Start on. nil: Start
	// makes one, whose other end is NIC.
	Wire *os.File
	// Authority is the one that the guest trusts already. nil: Start makes one, for this run of the VM.
	Authority *control.Authority
	// Plain has gateways use no offloads of the wire's, see control.Start.
	Plain bool
	// Record takes what gateways write into the audit, Ended each one's unexpected end. Neither may wait.
	Record func(api.NetRecord)
	Ended  func(why string)
	Log    *slog.Logger
}

// Uplink is one VM's.
type Uplink struct {
	opts Options
	wire *os.File // the gateway's end
	nic  *os.File // the card's end

	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	wanted  wanted
	missing []string      // of the measures that confine the gateway
	taken   *os.File      // the wire, where it is not the one that we made
	rewired bool          // another wire came since the last gateway was started
	begun   *session      // the gateway that was started last
	now     *session      // the gateway that is up; nil while there is none
	changed chan struct{} // closed when now changes
	everUp  bool
	failed  error // why there will be none any more
}

// wanted is what a gateway is to enforce: whichever one starts next has it from its beginning.
type wanted struct {
	policy  api.NetworkPolicy
	secrets []secret.Secret
}

func (w wanted) request() control.Request {
	return control.Request{Policy: &w.policy, Secrets: &control.Secrets{List: w.secrets}}
}

const (
	// How long a gateway may take to start, and to put a policy in force.
	answerLimit = 15 * time.Second

	// Between a gateway's end and the next one's start: at once at first, then longer.
	firstPause = 20 * time.Millisecond
	lastPause  = 5 * time.Second
	// So many that never came up are enough to give up, when none ever did.
	maxFailures = 4
	// One that lived so long was a good one.
	goodLife = 30 * time.Second
)

// Start makes the wire and starts a gateway, which lets nothing through until SetPolicy. It does not wait for it.
func Start(ctx context.Context, o Options) (*Uplink, error) {
	if o.Authority == nil {
		cert, key, err := authority.New()
		if err != nil {
			return nil, errdefs.Host.Errorf("the network's certificate authority: %w", err)
		}
		o.Authority = &control.Authority{Cert: cert, Key: key}
	}
	var nic *os.File
	if o.Wire == nil {
		var err error
		if o.Wire, nic, err = pair(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	u := &Uplink{
		opts: o, wire: o.Wire, nic: nic, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}),
		wanted: wanted{policy: api.NetworkPolicy{Mode: api.NetNone}},
	}
	go u.run(ctx)
	return u, nil
}

const wireBuffer = 1 << 20

// pair makes a wire's two ends.
func pair() (wire, nic *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, errdefs.Host.Errorf("make the network's socket pair: %w", err)
	}
	for _, fd := range fds { // room for more than one of the largest frames, as far as the host lets us
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, wireBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, wireBuffer)
		}
	}
	return os.NewFile(uintptr(fds[0]), "wire"), os.NewFile(uintptr(fds[1]), "nic"), nil
}

// Close ends the gateway and the wire.
func (u *Uplink) Close() error {
	u.cancel()
	<-u.done
	err := errors.Join(u.Take(nil), u.wire.Close())
	if u.nic != nil {
		err = errors.Join(err, u.nic.Close())
	}
	return err
}

// run starts one gateway after the other.
func (u *Uplink) run(ctx context.Context) {
	defer close(u.done)
	pause, failures := firstPause, 0
	for {
		begin := time.Now()
		err := u.one(ctx)
		if ctx.Err() != nil {
			u.set(nil, errdefs.Unavailable.Errorf("the VM's network has ended"))
			return
		}
		if u.anotherWire() {
			continue
		}
		u.opts.Log.Warn("the gateway has ended", "error", err)
		if failures = failures + 1; u.wasUp() {
			failures = 0
		}
		if failures == maxFailures {
			u.set(nil, err)
			return
		}
		if u.opts.Ended != nil {
			u.opts.Ended(err.Error())
		}
		if time.Since(begin) > goodLife {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(pause*2, lastPause)
	}
}

// Authority is the certificate (DER) by which the guest knows the gateway, whichever it is: every one that is started has its key.
func (u *Uplink) Authority() []byte { return u.opts.Authority.Cert }

// Missing are the measures that do not confine the gateway, each with its reason. It is known once a policy is in force.
func (u *Uplink) Missing() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.missing
}

// one runs one gateway to its end.
func (u *Uplink) one(ctx context.Context) error {
	wire := u.end()
	s, err := u.start(ctx, wire)
	if err != nil {
		return err
	}
	defer s.end()
	if !u.begin(s, wire) {
		return errors.New("there is another wire")
	}
	stop := context.AfterFunc(ctx, s.child.Kill)
	defer stop()
	go s.read(u.opts.Record)
	u.mu.Lock()
	has := u.wanted
	u.mu.Unlock()
	a, err := s.ask(ctx, startRequest(has, u.opts))
	if err != nil {
		return err
	}
	if r := a.Ready; r != nil {
		u.mu.Lock()
		u.missing = r.Missing
		u.mu.Unlock()
		u.opts.Log.Info("the gateway is up", "pid", s.child.PID(), "in_force", r.InForce, "missing", r.Missing)
	}
	// A policy that came meanwhile comes after the one it started with.
	if err := u.up(ctx, s, has); err != nil {
		return err
	}
	<-s.gone
	u.set(nil, nil)
	return s.why()
}

// up makes a gateway the one that is up, once it has what is wanted.
func (u *Uplink) up(ctx context.Context, s *session, has wanted) error {
	for {
		u.mu.Lock()
		want := u.wanted
		if same(want, has) {
			u.setLocked(s, nil)
			u.mu.Unlock()
			return nil
		}
		u.mu.Unlock()
		if _, err := s.ask(ctx, want.request()); err != nil {
			return err
		}
		has = want
	}
}

func (u *Uplink) set(s *session, failed error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.setLocked(s, failed)
}

func (u *Uplink) wasUp() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.everUp
}

func (u *Uplink) setLocked(s *session, failed error) {
	u.everUp = u.everUp || s != nil
	u.now, u.failed = s, failed
	close(u.changed)
	u.changed = make(chan struct{})
}

// session waits for a gateway that is up.
func (u *Uplink) session(ctx context.Context) (*session, error) {
	for {
		u.mu.Lock()
		s, failed, changed := u.now, u.failed, u.changed
		u.mu.Unlock()
		if s != nil || failed != nil {
			return s, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errdefs.Unavailable.Errorf("the VM's gateway does not start: %w", context.Cause(ctx)).WithRemedy("see supervisor.log in the VM's dir: smolvm inspect ID")
		}
	}
}

// SetPolicy puts a policy in force: when it returns nil, every decision from then on is made by it, and flows that it does
// not allow were ended.
func (u *Uplink) SetPolicy(ctx context.Context, p api.NetworkPolicy) error {
	return u.want(ctx, func(w *wanted) { w.policy = p })
}

// SetSecrets replaces all secrets, as SetPolicy does the policy, which must let requests reach their hosts.
func (u *Uplink) SetSecrets(ctx context.Context, list []secret.Secret) error {
	return u.want(ctx, func(w *wanted) { w.secrets = slices.Clone(list) })
}

// want changes what is wanted, and waits until it is in force.
func (u *Uplink) want(ctx context.Context, change func(*wanted)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*answerLimit)
	defer cancel()
	u.mu.Lock()
	former, s := u.wanted, u.now
	change(&u.wanted) // whichever gateway starts from now on has it
	request := u.wanted.request()
	u.mu.Unlock()
	if s != nil {
		_, err := s.ask(ctx, request)
		var refused *refusal
		switch {
		case err == nil:
			return nil
		case errors.As(err, &refused):
			u.mu.Lock()
			u.wanted = former
			u.mu.Unlock()
			return err
		}
		// Nobody knows which policy it has.
		s.child.Kill()
		<-s.gone
	}
	return u.another(ctx, s)
}

// another waits for a gateway that is not the former one: it has started with the policy as it is now.
func (u *Uplink) another(ctx context.Context, former *session) error {
	for {
		s, err := u.session(ctx)
		if err != nil {
			return err
		}
		if s != former {
			return nil
		}
		select {
		case <-ctx.Done():
			return errdefs.Timeout.Errorf("the VM's gateway does not start again: %w", context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
}

// Stats are the counters of the gateway that is up.
func (u *Uplink) Stats(ctx context.Context) (control.Stats, error) {
	s, err := u.session(ctx)
	if err != nil {
		return control.Stats{}, err
	}
	a, err := s.ask(ctx, control.Request{Stats: true})
	if err != nil || a.Stats == nil {
		return control.Stats{}, errdefs.Unavailable.Errorf("the VM's gateway does not answer: %w", err)
	}
	return *a.Stats, nil
}

// PID is the process of the gateway that is up; 0 while there is none.
func (u *Uplink) PID() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.now == nil {
		return 0
	}
	return u.now.child.PID()
}
