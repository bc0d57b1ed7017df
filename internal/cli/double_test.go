package cli_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// double is a Service without VMs. "web" runs and "old" does not; every call that changes something is a line in the file
// that $CALLS names.
type double struct{}

func call(format string, args ...any) {
	f, err := os.OpenFile(os.Getenv("CALLS"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	defer func() { _ = f.Close() }()
	_, _ = fmt.Fprintf(f, format+"\n", args...)
}

func (d double) PublishPort(_ context.Context, id string, p api.Port) (api.Port, error) {
	vm, err := d.find(id)
	if err != nil {
		return p, err
	}
	if p.HostPort == 8080 {
		return p, errdefs.AlreadyExists.Errorf("port 8080 of 127.0.0.1 is taken on this host").WithRemedy("ss -ltnp")
	}
	if p.HostPort == 0 && vm.State.Live() {
		p.HostPort = 40001
	}
	call("publish %s %s", id, p)
	return p, nil
}

func (d double) UnpublishPort(_ context.Context, id string, which api.Port) (api.Port, error) {
	vm, err := d.find(id)
	if err != nil {
		return which, err
	}
	at, err := api.SelectPort(vm.Ports, which)
	if err != nil {
		return which, err
	}
	call("unpublish %s %s", id, vm.Ports[at])
	return vm.Ports[at], nil
}

func (d double) SetSecrets(_ context.Context, id string, c api.SecretChange) error {
	if _, err := d.find(id); err != nil {
		return err
	}
	call("set secrets of %s: %s", id, c)
	for _, name := range slices.Sorted(maps.Keys(c.Values)) {
		call("%s has %d bytes, from %q", name, len(c.Values[name]), c.Sources[name])
	}
	return nil
}

func (guest) WaitPort(ctx context.Context, port int) error {
	if port == 9 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	call("wait for port %d", port)
	return nil
}

func (double) vms() []api.Sandbox {
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	web := api.Config{ID: "web", CPUs: 2, MemoryMiB: 2048, DiskMiB: 8192}.WithDefaults()
	old := api.Config{ID: "old"}.WithDefaults()
	if os.Getenv("SECRETS") != "" {
		web.Secrets = []api.Secret{{Name: "TOKEN", Source: "env:TOKEN", Hosts: []string{"api.example.com", "*.example.org"}, Placeholder: "PLACEHOLDER012345678"}}
		old.Secrets = append(web.Secrets, api.Secret{Name: "GIVEN", Hosts: []string{"a.example.com"}})
	}
	return []api.Sandbox{
		{ID: "web", State: api.StateRunning, Owner: api.OwnerKeep, Config: web, Network: api.NetworkPolicy{Mode: api.NetOpen}, CreatedAt: born, Ports: ports()},
		{ID: "old", State: api.StateError, Reason: "panic: \x1b[31mguest", Owner: api.OwnerKeep, Config: old, Network: api.NetworkPolicy{Mode: api.NetOpen}, CreatedAt: born},
	}
}

// ports are those that "web" publishes, where a test wants some.
func ports() []api.Port {
	if os.Getenv("PORTS") == "" {
		return []api.Port{}
	}
	return []api.Port{{Address: "127.0.0.1", HostPort: 8080, GuestPort: 80}, {Address: "::1", HostPort: 40002, GuestPort: 443, Any: true}}
}

func (d double) find(id string) (api.Sandbox, error) {
	for _, vm := range d.vms() {
		if vm.ID == id {
			return vm, nil
		}
	}
	return api.Sandbox{}, errdefs.NotFound.Errorf("vm %s: there is none", id).WithRemedy("smolvm ls -a")
}

func (d double) Create(_ context.Context, cfg api.Config, o lifecycle.CreateOptions) (api.Sandbox, error) {
	if _, err := d.find(cfg.ID); err == nil {
		return api.Sandbox{}, errdefs.AlreadyExists.Errorf("vm %s: it exists", cfg.ID).WithRemedy("smolvm rm %s", cfg.ID)
	}
	if cfg.ID == "" {
		cfg.ID = "made-up"
	}
	if o.Client != os.Getpid() {
		return api.Sandbox{}, errdefs.Internal.Errorf("the client is %d", o.Client)
	}
	call("create %s owner=%s cpus=%d memory=%d disk=%d env=%v workdir=%s user=%s accel=%v boot=%d net=%s %v",
		cfg.ID, o.Owner, cfg.CPUs, cfg.MemoryMiB, cfg.DiskMiB, cfg.Env, cfg.Workdir, cfg.User, cfg.RequireAccel, cfg.BootTimeoutMs, cfg.Network, cfg.Network.Rules)
	if cfg.OutputMiB != 0 {
		call("sizes processes=%d console=%d log=%d output=%d", cfg.MaxProcesses, cfg.ConsoleMiB, cfg.LogMiB, cfg.OutputMiB)
	}
	for _, s := range cfg.Secrets {
		call("secret %s, %d bytes", s, len(o.Secrets[s.Name]))
	}
	if cfg.TTLMs != 0 || cfg.IdleMs != 0 {
		call("limits ttl=%d idle=%d=%s", cfg.TTLMs, cfg.IdleMs, cfg.IdleAction)
	}
	if cfg.RootfsPath != "" || cfg.KernelPath != "" || cfg.BootArgs != "" || len(cfg.AuthorizedKeys) > 0 {
		call("boot image=%q rootfs=%s kernel=%s args=%q keys=%q", cfg.Image, filepath.Base(cfg.RootfsPath), filepath.Base(cfg.KernelPath), cfg.BootArgs, cfg.AuthorizedKeys)
	}
	if len(cfg.Ports) > 0 {
		call("ports %v start=%v", cfg.Ports, o.Start)
	}
	return api.Sandbox{ID: cfg.ID, State: api.StateCreated, Config: cfg}, nil
}

func (d double) StartWith(ctx context.Context, id string, values api.SecretValues, progress api.ProgressFunc) (api.Sandbox, error) {
	progress(api.Progress{Stage: "boot", Detail: "wait for the guest"})
	switch id {
	case "noboot":
		return api.Sandbox{}, errdefs.Timeout.Errorf("start noboot: no hello within 60s; the console ends with:\nKernel panic \x1b[5m").
			WithRemedy("smolvm logs --console noboot")
	case "slowboot":
		call("start slowboot")
		<-ctx.Done()
		return api.Sandbox{}, ctx.Err()
	}
	call("start %s", id)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		call("with secret %s, %d bytes", name, len(values[name]))
	}
	vm := api.Sandbox{ID: id, State: api.StateRunning}
	if id == "ported" {
		vm.Ports = []api.Port{{Address: "127.0.0.1", HostPort: 40001, GuestPort: 80, Any: true}, {Address: "127.0.0.1", HostPort: 8080, GuestPort: 80}}
	}
	return vm, nil
}

func (d double) Stop(_ context.Context, id string, o lifecycle.StopOptions) error {
	call("stop %s grace=%s kill=%v", id, o.Grace, o.Kill)
	return nil
}

func (d double) Pause(context.Context, string) error   { return nil }
func (d double) Unpause(context.Context, string) error { return nil }

func (d double) Remove(ctx context.Context, id string, force bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	vm, err := d.find(id)
	if err != nil && strings.HasPrefix(id, "no") && id != "noboot" {
		return err
	}
	if vm.State.Live() && !force {
		return errdefs.WrongState.Errorf("remove %s: it runs", id).WithRemedy("smolvm rm -f %s", id)
	}
	call("remove %s force=%v", id, force)
	return nil
}

func (d double) SetOwner(_ context.Context, id string, owner api.Owner) error {
	call("owner %s %s", id, owner)
	return nil
}

func (d double) List(_ context.Context, all bool) ([]api.Sandbox, error) {
	if all {
		return d.vms(), nil
	}
	return d.vms()[:1], nil
}

func (d double) Inspect(_ context.Context, id string, _ bool) (api.Sandbox, error) { return d.find(id) }

func (d double) Logs(_ context.Context, id string, kind lifecycle.LogKind, follow bool, w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s of %s, follow %v\x1b[0m\n", kind, id, follow)
	return err
}

func (d double) SetNetwork(_ context.Context, id string, p api.NetworkPolicy) error {
	if _, err := d.find(id); err != nil {
		return err
	}
	call("network %s %s %v dns=%v rate=%d", id, p, p.Rules, p.DNS, p.RateKBps)
	return nil
}

func (d double) NetworkLog(_ context.Context, id string, follow bool, each func(api.NetRecord) error) error {
	if _, err := d.find(id); err != nil {
		return err
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for _, r := range []api.NetRecord{
		{Kind: "dns", Name: "evil\x1b.example", QType: "A", Verdict: "deny", Rule: "default", Reason: "no rule allows it"},
		{Kind: "tcp", Name: "pypi.org", Addr: "151.101.0.223", Port: 443, Verdict: "allow", Rule: "allow pypi.org:443", BytesIn: 2000, BytesOut: 300, DurationMs: 1500},
		{Kind: "http", Name: "github.com", Port: 443, Proto: "https", Verdict: "allow", Rule: "allow github.com=GET", Method: "GET", Path: "/x", Status: 200, BytesIn: 2000, DurationMs: 90, Secrets: []string{"TOKEN"}},
		{Kind: "http", Name: "github.com", Port: 80, Proto: "http", Verdict: "deny", Rule: "default", Reason: "no rule allows it", Method: "POST", Path: "/\x1bx", Status: 403, BytesOut: 5},
		{Kind: "udp", Addr: "10.0.0.1", Port: 53, Verdict: "deny", Rule: "default", Reason: fmt.Sprintf("follow %v", follow)},
		{Kind: "frame", Verdict: "deny", Rule: "link", Reason: "ipv6", Count: 5},
		{Kind: "dropped", Count: 7},
	} {
		r.Time = at
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func (d double) NetworkStats(_ context.Context, id string) (api.NetStats, error) {
	if _, err := d.find(id); err != nil {
		return api.NetStats{}, err
	}
	return api.NetStats{Records: 3, Dropped: 7, DNSDenied: 1, FlowsAllowed: 1, FlowsDenied: 1, OtherDenied: 5, Requests: 3, RequestsDenied: 1, BytesIn: 2000, BytesOut: 300, Peers: []api.NetPeer{
		{Name: "pypi.org", Allowed: 1, Requests: 3, RequestsDenied: 1, BytesIn: 2000, BytesOut: 300}, {Name: "evil\x1b.example", Denied: 1},
	}}, nil
}

func (d double) Connect(_ context.Context, id string) (cli.Guest, error) {
	if id == "old" {
		return nil, errdefs.WrongState.Errorf("exec old: it does not run").WithRemedy("smolvm start old")
	}
	if strings.HasPrefix(id, "no") {
		_, err := d.find(id)
		return nil, err
	}
	return guest{dir: os.Getenv("GUEST")}, nil
}

// guest stands for a VM: its commands are a few words, its files those below dir.
type guest struct{ dir string }

func (guest) Close() error { return nil }

func (guest) Exec(ctx context.Context, req api.ExecRequest, s lifecycle.ExecIO) (api.ExecResult, error) {
	if req.OnDisconnect != api.DisconnectKill {
		return api.ExecResult{}, errdefs.Internal.Errorf("the command would outlive its client")
	}
	if req.TTY != nil && req.Stdin {
		return tty(ctx, req, s)
	}
	if req.Shell {
		_, err := io.Copy(s.Stdout, s.Stdin)
		return api.ExecResult{}, err
	}
	if req.Script != "" {
		_, _ = fmt.Fprintf(s.Stdout, "script %q login=%v\n", req.Script, req.Login)
		return api.ExecResult{}, nil
	}
	switch req.Argv[0] {
	case "cat":
		if req.Stdin {
			if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
				return api.ExecResult{}, err
			}
		}
	case "show":
		_, _ = fmt.Fprintf(s.Stdout, "argv=%q env=%v cwd=%s user=%s timeout=%d stdin=%v\n", req.Argv[1:], req.Env, req.Cwd, req.User, req.TimeoutMs, req.Stdin)
		if req.TTY != nil {
			_, _ = fmt.Fprintf(s.Stdout, "tty %dx%d\n", req.TTY.Rows, req.TTY.Cols)
		}
		_, _ = fmt.Fprint(s.Stderr, "to stderr\n")
	case "ps":
		_, _ = fmt.Fprintf(s.Stdout, "ps %q \x1b[2Jevil\n", req.Argv[1:])
	case "exit7":
		return api.ExecResult{ExitCode: 7}, nil
	case "binary":
		_, _ = s.Stdout.Write([]byte{0xff, 0, 1})
	case "flood":
		for {
			if _, err := s.Stdout.Write(make([]byte, 1<<16)); err != nil {
				return api.ExecResult{}, err
			}
		}
	case "timeout":
		return api.ExecResult{ExitCode: 124, TimedOut: true}, nil
	case "broken":
		return api.ExecResult{}, errdefs.Unavailable.Errorf("exec: the link to the agent broke")
	case "signal":
		_, _ = fmt.Fprintln(s.Stdout, "up")
		_, _ = fmt.Fprintln(s.Stdout, <-s.Signals)
		return api.ExecResult{ExitCode: 9}, nil
	case "stubborn":
		_, _ = fmt.Fprintln(s.Stdout, "up")
		_, _ = fmt.Fprintln(s.Stdout, <-s.Signals)
		<-ctx.Done()
		return api.ExecResult{}, ctx.Err()
	default:
		return api.ExecResult{ExitCode: 127, Error: "exec " + req.Argv[0] + ": not found\x1b[2J"}, nil
	}
	return api.ExecResult{}, nil
}

func (guest) StartDetached(_ context.Context, req api.ExecRequest) (api.ProcessInfo, error) {
	if req.Argv[0] == "nothing" {
		return api.ProcessInfo{}, errdefs.NotFound.Errorf("exec nothing: not found")
	}
	call("detached %v main=%v disconnect=%s", req.Argv, req.Main, req.OnDisconnect)
	return api.ProcessInfo{ExecID: "d7", PID: 7}, nil
}

func (g guest) path(p string) string { return filepath.Join(g.dir, p) }

func (g guest) Stat(_ context.Context, p string, _ bool) (api.FileInfo, error) {
	st, err := os.Stat(g.path(p))
	if err != nil {
		return api.FileInfo{}, errdefs.NotFound.Errorf("%s: there is no such file", p)
	}
	kind := "file"
	if st.IsDir() {
		kind = "dir"
	}
	return api.FileInfo{Name: st.Name(), Path: p, Type: kind, Size: st.Size(), Mode: uint32(st.Mode().Perm()) | 0o4000}, nil
}

func (g guest) ReadFile(_ context.Context, p string, _, _ int64) (io.ReadCloser, error) {
	return os.Open(g.path(p))
}

func (g guest) WriteFile(_ context.Context, p string, mode os.FileMode, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err == nil {
		err = os.WriteFile(g.path(p), b, mode)
	}
	return err
}

// images are a cache with one image.
type images struct{}

func (images) List() ([]api.Image, []error) {
	return []api.Image{{Name: "debian", Digest: "sha256:0123456789abcdef", SizeBytes: 600 << 20, Builder: "debian"}}, nil
}

func (i images) Inspect(name string) (api.Image, error) {
	if name != "debian" {
		return api.Image{}, errdefs.NotFound.Errorf("image %s: there is none", name).WithRemedy("smolvm image ls")
	}
	all, _ := i.List()
	return all[0], nil
}

func (i images) Build(_ context.Context, b cli.ImageBuild) (api.Image, error) {
	call("build %s refresh=%v include=%v", b.Name, b.Refresh, b.Include)
	b.Progress(api.Progress{Stage: "packages", Done: 1, Total: 2})
	all, _ := i.List()
	return all[0], nil
}

func (images) Remove(_ context.Context, name string) error {
	call("remove image %s", name)
	return nil
}
