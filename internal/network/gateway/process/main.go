// Package process is a gateway as a process: what it inherits, what confines it, and what its supervisor tells it.
//
// Layer: network, above gateway. It may import network, network/{authority,control,secret}, gateway and what is below it, api, errdefs,
// internal/sys.
package process

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/authority"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway"
	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/gateway/frame"
	"github.com/smolvm/smolvm/internal/network/gateway/proxy"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
	"github.com/smolvm/smolvm/internal/network/secret"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

const (
	defaultConns     = 4096
	defaultNewPerSec = 2000
	defaultDNSPerSec = 500
	// Descriptors that are not flows' own.
	spareFiles = 256
	// A policy may want more flows later than it does at the start, and a limit of the process only goes down.
	maxFiles = api.MaxConnsLimit + spareFiles
	// Sixteen thousand names fit.
	maxNamesFile = 8 << 20

	maxRecords  = 1024
	hostsEvery  = 5 * time.Second
	memoryLimit = gateway.MaxQueued + proxy.MaxHeld + 96<<20
)

// Main is the process that the hidden subcommand control.Command runs, and returns its exit code. Its supervisor starts it.
func Main(ctx context.Context) int {
	// It holds little while nothing moves, and much only for a short time.
	debug.SetGCPercent(50)
	// Moving bytes is one system call after another. On more processors it costs a fifth more of them for each byte, for waking
	// each other up, and no guest's network may take more than about one from the host.
	runtime.GOMAXPROCS(1)
	debug.SetMemoryLimit(memoryLimit)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	p, err := inherit()
	if err == nil {
		err = p.run(ctx, log)
	}
	if err != nil {
		log.Error("the gateway failed", "error", err)
		return 1
	}
	return 0
}

// process is a gateway with what surrounds it.
type process struct {
	conn    *control.Conn
	wire    int
	names   *os.File
	gateway *gateway.Gateway
	host    []netip.Addr // the host's own addresses
	policy  api.NetworkPolicy
	secrets *secret.Set
	records chan api.NetRecord
	lost    atomic.Int64
}

func inherit() (*process, error) {
	for _, fd := range []int{control.FDWire, control.FDControl, control.FDNames} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, errdefs.Invalid.Errorf("descriptor %d is missing: a gateway is started by its supervisor", fd)
		}
		unix.CloseOnExec(fd)
	}
	f := os.NewFile(control.FDControl, "control")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("gateway control: %w", err)
	}
	return &process{
		conn: control.NewConn(c), wire: control.FDWire, names: os.NewFile(control.FDNames, "names"), records: make(chan api.NetRecord, maxRecords),
	}, nil
}

// run confines the process, starts the gateway and serves the supervisor until it hangs up.
func (p *process) run(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first control.Request
	if err := p.conn.Read(&first); err != nil {
		return err
	}
	if first.Start == nil || first.Policy == nil {
		return errdefs.Invalid.Errorf("the first line does not say how to start")
	}
	ready, err := p.start(first, log)
	if err != nil {
		_ = p.conn.Write(control.Answer{Seq: first.Seq, Error: err.Error()})
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.gateway.Run(ctx) }()
	go p.tell(ctx)
	if err := p.conn.Write(control.Answer{Seq: first.Seq, Ready: ready}); err != nil {
		return err
	}
	requests := make(chan control.Request)
	go p.listen(ctx, requests)
	had := readable(resolvConf)
	tick := time.NewTicker(hostsEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case r, ok := <-requests:
			if !ok {
				cancel()
				return <-ended
			}
			if err := p.conn.Write(p.answer(r)); err != nil {
				return err
			}
		case <-tick.C:
			p.lookAtHost(log)
			if had && !readable(resolvConf) {
				return errdefs.Host.Errorf("%s is another file now, which this process may not open", resolvConf)
			}
		}
	}
}

// start does what comes before the first frame.
func (p *process) start(first control.Request, log *slog.Logger) (*control.Ready, error) {
	s := *first.Start
	names, err := loadNames(p.names)
	if err != nil {
		return nil, err
	}
	servers, err := resolversFromEnv()
	if err != nil {
		return nil, err
	}
	way := dial.ProxyFromEnv()
	http, err := lookInto(s, log)
	if err != nil {
		return nil, err
	}
	report, err := launch.Confine(launch.Plan{
		Parent: s.Parent, UID: s.UID, ReadFiles: s.ReadFiles, ReadDirs: s.ReadDirs, Network: true, MaxFiles: maxFiles, MaxFileBytes: maxNamesFile,
	})
	if err != nil {
		return nil, fmt.Errorf("confine the gateway: %w", err)
	}
	p.host = hostAddrs()
	compiled, err := p.compile(first)
	if err != nil {
		return nil, err
	}
	take := wire.Take
	if s.Plain {
		take = wire.TakePlain
	}
	w, err := take(p.wire)
	if err != nil {
		return nil, err
	}
	p.gateway, err = gateway.New(gateway.Options{
		Wire: w, MTU: control.MTU, Policy: compiled, Limits: limitsOf(p.policy), Names: names, Proxy: way, DNS: servers, Record: p.record, Log: log, HTTP: http, Secrets: p.secrets,
		Link: frame.Link{
			GuestMAC: [6]byte(control.GuestMAC()), GatewayMAC: [6]byte(control.GatewayMAC()), Guest: control.Guest().Addr(), Gateway: control.Gateway(),
		},
	})
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	if left, err := restrict(); err != nil {
		report.Missing = append(report.Missing, "seccomp: "+err.Error())
	} else {
		report.InForce = append(report.InForce, fmt.Sprintf("seccomp %d calls", left))
		report.Enclosed()
	}
	return &control.Ready{InForce: report.InForce, Missing: report.Missing}, nil
}

// resolversFromEnv are those that the environment names.
func resolversFromEnv() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for text := range strings.SplitSeq(os.Getenv(control.EnvDNS), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		at, err := api.ParseResolver(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", control.EnvDNS, err)
		}
		out = append(out, at)
	}
	return out, nil
}

// listen reads requests until the supervisor hangs up.
func (p *process) listen(ctx context.Context, to chan<- control.Request) {
	defer close(to)
	for {
		var r control.Request
		if p.conn.Read(&r) != nil {
			return
		}
		select {
		case to <- r:
		case <-ctx.Done():
			return
		}
	}
}

func (p *process) answer(r control.Request) control.Answer {
	a := control.Answer{Seq: r.Seq}
	if r.Policy != nil || r.Secrets != nil {
		if err := p.change(r); err != nil {
			a.Error = err.Error()
		}
	}
	if r.Stats {
		s := p.gateway.Stats()
		s.LostRecords = p.lost.Load()
		a.Stats = &s
	}
	return a
}

// compile makes what a request wants of policy and secrets, and what it says nothing of stays. Nothing changes on an error.
func (p *process) compile(r control.Request) (*network.Policy, error) {
	policy, secrets := p.policy, p.secrets
	if r.Policy != nil {
		policy = *r.Policy
	}
	if r.Secrets != nil {
		var err error
		if secrets, err = secret.New(r.Secrets.List); err != nil {
			return nil, err
		}
	}
	compiled, err := network.Compile(policy, network.Options{HostAddrs: p.host, SecretHosts: secrets.Hosts()})
	if err == nil {
		p.policy, p.secrets = policy, secrets
	}
	return compiled, err
}

func (p *process) change(r control.Request) error {
	compiled, err := p.compile(r)
	if err != nil {
		return err
	}
	p.gateway.SetSecrets(p.secrets)
	p.gateway.SetPolicy(compiled, limitsOf(p.policy))
	return nil
}

// lookInto is what looking into connections takes: what the guest trusts, and whom the host does. It is read while files can be.
func lookInto(s control.Start, log *slog.Logger) (proxy.Options, error) {
	if s.Authority == nil {
		return proxy.Options{}, errdefs.Invalid.Errorf("the first line names no authority")
	}
	issuer, err := authority.Load(s.Authority.Cert, s.Authority.Key)
	if err != nil {
		return proxy.Options{}, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil { // then no server is trusted, and each request says so; what needs none goes on
		log.Warn("the host's certificates cannot be read", "error", err)
		roots = x509.NewCertPool()
	}
	return proxy.Options{Issuer: issuer, Roots: roots}, nil
}

// lookAtHost closes addresses that the host got since.
func (p *process) lookAtHost(log *slog.Logger) {
	now := hostAddrs()
	if slices.Equal(now, p.host) {
		return
	}
	p.host = now
	if err := p.change(control.Request{}); err != nil {
		log.Error("the host has new addresses and the policy does not fit them", "error", err)
	}
}

// resolvConf is where the host's resolvers stand. Confinement holds to the file that it was at the start: when the host puts
// another one in its place, a fresh gateway must follow.
const resolvConf = "/etc/resolv.conf"

func readable(path string) bool {
	f, err := os.Open(path)
	if err == nil {
		_ = f.Close()
	}
	return !errors.Is(err, fs.ErrPermission)
}

// hostAddrs are the host's own addresses, loopback aside, which is closed anyway.
func hostAddrs() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLoopback() {
			out = append(out, p.Addr())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// record queues for the audit what it never waits for.
func (p *process) record(r api.NetRecord) {
	select {
	case p.records <- r:
	default:
		p.lost.Add(1)
	}
}

// tell sends records to the supervisor, and how many were lost.
func (p *process) tell(ctx context.Context) {
	var told int64
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-p.records:
			runtime.Gosched() // to what the guest waits for
			if p.conn.Write(control.Answer{Record: &r}) != nil {
				return
			}
			if n := p.lost.Load(); n != told && len(p.records) == 0 {
				r := api.NetRecord{Time: time.Now(), Kind: "dropped", Verdict: "deny", Reason: "too many at once", Count: n - told}
				told = n
				if p.conn.Write(control.Answer{Record: &r}) != nil {
					return
				}
			}
		}
	}
}

// loadNames reads the synthetic names and goes on writing them. What a gateway that died left half written is cut off: its
// address was told to nobody.
func loadNames(f *os.File) (*network.Synthetic, error) {
	b, err := io.ReadAll(io.LimitReader(f, maxNamesFile))
	if err != nil {
		return nil, fmt.Errorf("the synthetic names: %w", err)
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	if len(whole) < len(b) {
		if err := f.Truncate(int64(len(whole))); err != nil {
			return nil, fmt.Errorf("the synthetic names: %w", err)
		}
	}
	names := network.NewSynthetic(f)
	return names, names.Load(bytes.NewReader(whole))
}

// limitsOf are a policy's limits, as far as this process can have them.
func limitsOf(p api.NetworkPolicy) gateway.Limits {
	l := gateway.Limits{Conns: defaultConns, NewPerSec: defaultNewPerSec, DNSPerSec: defaultDNSPerSec, Rate: p.RateKBps * 1000}
	for _, v := range []struct {
		to   *int
		from int
	}{{&l.Conns, p.MaxConns}, {&l.NewPerSec, p.MaxNewPerSec}, {&l.DNSPerSec, p.MaxDNSPerSec}} {
		if v.from > 0 {
			*v.to = v.from
		}
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		l.Conns = min(l.Conns, max(int(min(files.Cur, 1<<20))-spareFiles, 16))
	}
	return l
}
