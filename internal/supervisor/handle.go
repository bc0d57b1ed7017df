package supervisor

import (
	"context"
	"io"
	"net/url"
	"path"
	"strconv"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

func itoa(n int) string { return strconv.Itoa(n) }

// handle says what the control socket answers.
func (s *supervisor) handle() {
	s.server.HandleExec(s.exec)
	s.server.HandleStart(s.start)
	s.server.HandleGet(rpc.RouteFile, s.readFile)
	s.server.HandlePut(rpc.RouteFile, s.writeFile)
	s.server.HandleGet(rpc.RouteTar, s.tarOut)
	s.server.HandlePut(rpc.RouteTar, s.tarIn)
	rpc.Handle(s.server, rpc.RouteSignal, s.signal)
	rpc.Handle(s.server, rpc.RoutePing, s.ping)
	rpc.Handle(s.server, rpc.RouteMetrics, s.metrics)
	rpc.Handle(s.server, rpc.RouteStat, s.stat)
	rpc.Handle(s.server, rpc.RouteList, s.list)
	rpc.Handle(s.server, rpc.RouteStop, s.stop)
	rpc.Handle(s.server, rpc.RouteOwner, s.setOwner)
	for route, f := range map[string]func(context.Context, *client.Client, rpc.PathRequest) error{
		rpc.RouteSync: func(ctx context.Context, g *client.Client, _ rpc.PathRequest) error { return g.Sync(ctx) },
		rpc.RouteMkdir: func(ctx context.Context, g *client.Client, r rpc.PathRequest) error {
			return g.Mkdir(ctx, r.Path, r.Mode, r.Recursive)
		},
		rpc.RouteRemove: func(ctx context.Context, g *client.Client, r rpc.PathRequest) error {
			return g.Remove(ctx, r.Path, r.Recursive)
		},
		rpc.RouteRename: func(ctx context.Context, g *client.Client, r rpc.PathRequest) error {
			return g.Rename(ctx, r.Path, r.To)
		},
		rpc.RouteChmod: func(ctx context.Context, g *client.Client, r rpc.PathRequest) error {
			return g.Chmod(ctx, r.Path, r.Mode)
		},
	} {
		rpc.Handle(s.server, route, func(ctx context.Context, r rpc.PathRequest) (rpc.Nothing, error) {
			guest, err := s.agent(ctx)
			if err == nil {
				err = f(ctx, guest, r)
			}
			return rpc.Nothing{}, err
		})
	}
	for route, want := range map[string]bool{rpc.RoutePause: true, rpc.RouteUnpause: false} {
		rpc.Handle(s.server, route, func(ctx context.Context, _ rpc.Nothing) (rpc.Nothing, error) {
			return rpc.Nothing{}, s.pause(ctx, want)
		})
	}
}

func (s *supervisor) ping(ctx context.Context, _ rpc.Nothing) (rpc.PingResponse, error) {
	guest, err := s.agent(ctx)
	if err != nil {
		return rpc.PingResponse{}, err
	}
	begun := time.Now()
	err = guest.Ping(ctx)
	return rpc.PingResponse{Micros: time.Since(begun).Microseconds()}, err
}

func (s *supervisor) metrics(ctx context.Context, _ rpc.Nothing) (api.Metrics, error) {
	guest, err := s.agent(ctx)
	if err != nil {
		return api.Metrics{}, err
	}
	m, err := guest.Metrics(ctx)
	if err != nil {
		return api.Metrics{}, err
	}
	return api.Metrics{
		UptimeMs: m.GetUptimeMs(), CPUMs: m.GetCpuMs(), MemoryTotal: m.GetMemoryTotal(), MemoryAvailable: m.GetMemoryAvailable(),
		DiskTotal: m.GetDiskTotal(), DiskFree: m.GetDiskFree(), Processes: m.GetProcesses(), AgentRSS: m.GetAgentRss(),
		AgentPeakRSS: m.GetAgentPeakRss(),
	}, nil
}

func (s *supervisor) stat(ctx context.Context, r rpc.PathRequest) (api.FileInfo, error) {
	guest, err := s.agent(ctx)
	if err != nil {
		return api.FileInfo{}, err
	}
	info, err := guest.Stat(ctx, r.Path, r.NoFollow)
	if err != nil {
		return api.FileInfo{}, err
	}
	return fileInfo(info, r.Path), nil
}

func (s *supervisor) list(ctx context.Context, r rpc.PathRequest) (rpc.ListResponse, error) {
	guest, err := s.agent(ctx)
	if err != nil {
		return rpc.ListResponse{}, err
	}
	entries, err := guest.List(ctx, r.Path)
	res := rpc.ListResponse{Entries: make([]api.FileInfo, 0, len(entries))}
	for _, e := range entries {
		res.Entries = append(res.Entries, fileInfo(e, path.Join(r.Path, e.GetName())))
	}
	return res, err
}

// fileInfo is what the guest says of a file, bounded.
func fileInfo(f *proto.FileInfo, at string) api.FileInfo {
	kind := f.GetType()
	switch kind {
	case "file", "dir", "symlink", "fifo", "socket", "char", "block":
	default:
		kind = "unknown"
	}
	return api.FileInfo{
		Name: cut(f.GetName(), proto.MaxPath), Path: at, Type: kind, Size: max(0, f.GetSize()), Mode: f.GetMode() & 0o7777,
		UID: f.GetUid(), GID: f.GetGid(), ModTime: time.Unix(0, f.GetMtimeNs()).UTC(), Target: cut(f.GetTarget(), proto.MaxPath),
	}
}

func (s *supervisor) readFile(ctx context.Context, q url.Values) (io.ReadCloser, error) {
	guest, err := s.agent(ctx)
	if err != nil {
		return nil, err
	}
	offset, err := strconv.ParseInt(q.Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		return nil, errdefs.Invalid.Errorf("offset: %q is no position", q.Get("offset"))
	}
	length, err := strconv.ParseInt(q.Get("length"), 10, 64)
	if err != nil {
		return nil, errdefs.Invalid.Errorf("length: %q is no number", q.Get("length"))
	}
	return guest.ReadFile(ctx, q.Get("path"), offset, length)
}

func (s *supervisor) writeFile(ctx context.Context, q url.Values, r io.Reader) error {
	guest, err := s.agent(ctx)
	if err != nil {
		return err
	}
	var attr client.Attr
	if text := q.Get("mode"); text != "" {
		m, err := strconv.ParseUint(text, 8, 12)
		if err != nil {
			return errdefs.Invalid.Errorf("mode: %q is none", text)
		}
		mode := uint32(m)
		attr.Mode = &mode
	}
	return guest.WriteFile(ctx, q.Get("path"), attr, r)
}

func (s *supervisor) tarOut(ctx context.Context, q url.Values) (io.ReadCloser, error) {
	guest, err := s.agent(ctx)
	if err != nil {
		return nil, err
	}
	return guest.TarOut(ctx, q.Get("path"))
}

func (s *supervisor) tarIn(ctx context.Context, q url.Values, r io.Reader) error {
	guest, err := s.agent(ctx)
	if err != nil {
		return err
	}
	return guest.TarIn(ctx, q.Get("path"), r)
}

// stop ends the VM. It goes on when the client does not wait for it.
func (s *supervisor) stop(ctx context.Context, r rpc.StopRequest) (rpc.Nothing, error) {
	e := end{reason: "stopped", grace: time.Duration(r.GraceMs) * time.Millisecond, kill: r.Kill, delete: r.Delete}
	if e.grace <= 0 {
		e.grace = defaultGrace
	}
	return rpc.Nothing{}, s.ask(ctx, e)
}

// setOwner changes who decides that the VM may go.
func (s *supervisor) setOwner(ctx context.Context, r rpc.OwnerRequest) (rpc.Nothing, error) {
	var client *store.Process
	switch r.Owner {
	case api.OwnerKeep:
	case api.OwnerClient:
		ticks, err := pidfd.StartTicks(r.Client)
		if err != nil {
			return rpc.Nothing{}, errdefs.Invalid.Errorf("owner: process %d: %w", r.Client, err)
		}
		client = &store.Process{PID: r.Client, StartTicks: ticks}
	default:
		return rpc.Nothing{}, errdefs.Invalid.Errorf("owner: %q is neither keep nor client", r.Owner)
	}
	if err := s.save(func(st *store.State) { st.Owner, st.Client = r.Owner, client }); err != nil {
		return rpc.Nothing{}, err
	}
	// The watch outlives the call.
	return rpc.Nothing{}, s.watchOwner(context.WithoutCancel(ctx))
}
