package relay

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
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
)

// Register adds the answers to a control socket.
func (r *Relay) Register(s *rpc.Server) {
	s.HandleExec(r.exec)
	s.HandleStart(r.start)
	s.HandleGet(rpc.RouteFile, r.readFile)
	s.HandlePut(rpc.RouteFile, r.writeFile)
	s.HandleGet(rpc.RouteTar, r.tarOut)
	s.HandlePut(rpc.RouteTar, r.tarIn)
	rpc.Handle(s, rpc.RouteSignal, r.signal)
	s.HandleAttach(r.attach)
	rpc.Handle(s, rpc.RouteProcs, r.processes)
	rpc.Handle(s, rpc.RouteWait, r.wait)
	rpc.Handle(s, rpc.RouteKeep, r.keep)
	rpc.Handle(s, rpc.RouteResize, r.resize)
	rpc.Handle(s, rpc.RoutePing, r.ping)
	rpc.Handle(s, rpc.RouteWaitPort, r.waitPort)
	rpc.Handle(s, rpc.RouteMetrics, r.metrics)
	rpc.Handle(s, rpc.RouteStat, r.stat)
	rpc.Handle(s, rpc.RouteList, r.list)
	for route, f := range map[string]func(context.Context, *client.Client, rpc.PathRequest) error{
		rpc.RouteSync: func(ctx context.Context, g *client.Client, _ rpc.PathRequest) error { return g.Sync(ctx) },
		rpc.RouteMkdir: func(ctx context.Context, g *client.Client, p rpc.PathRequest) error {
			return g.Mkdir(ctx, p.Path, p.Mode, p.Recursive)
		},
		rpc.RouteRemove: func(ctx context.Context, g *client.Client, p rpc.PathRequest) error {
			return g.Remove(ctx, p.Path, p.Recursive)
		},
		rpc.RouteRename: func(ctx context.Context, g *client.Client, p rpc.PathRequest) error {
			return g.Rename(ctx, p.Path, p.To)
		},
		rpc.RouteChmod: func(ctx context.Context, g *client.Client, p rpc.PathRequest) error {
			return g.Chmod(ctx, p.Path, p.Mode)
		},
	} {
		rpc.Handle(s, route, func(ctx context.Context, req rpc.PathRequest) (rpc.Nothing, error) {
			guest, err := r.agent(ctx)
			if err == nil {
				err = f(ctx, guest, req)
			}
			return rpc.Nothing{}, err
		})
	}
}

func (r *Relay) ping(ctx context.Context, _ rpc.Nothing) (rpc.PingResponse, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return rpc.PingResponse{}, err
	}
	begun := time.Now()
	err = guest.Ping(ctx)
	return rpc.PingResponse{Micros: time.Since(begun).Microseconds()}, err
}

func (r *Relay) metrics(ctx context.Context, _ rpc.Nothing) (api.Metrics, error) {
	guest, err := r.agent(ctx)
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
		AgentPeakRSS: m.GetAgentPeakRss(), NetworkReceived: m.GetNetworkReceived(), NetworkSent: m.GetNetworkSent(),
	}, nil
}

func (r *Relay) stat(ctx context.Context, p rpc.PathRequest) (api.FileInfo, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return api.FileInfo{}, err
	}
	info, err := guest.Stat(ctx, p.Path, p.NoFollow)
	if err != nil {
		return api.FileInfo{}, err
	}
	return fileInfo(info, p.Path), nil
}

func (r *Relay) list(ctx context.Context, p rpc.PathRequest) (rpc.ListResponse, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return rpc.ListResponse{}, err
	}
	entries, err := guest.List(ctx, p.Path)
	res := rpc.ListResponse{Entries: make([]api.FileInfo, 0, len(entries))}
	for _, e := range entries {
		res.Entries = append(res.Entries, fileInfo(e, path.Join(p.Path, e.GetName())))
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
		Name: excerpt.Cut(f.GetName(), proto.MaxPath), Path: at, Type: kind, Size: max(0, f.GetSize()), Mode: f.GetMode() & 0o7777,
		UID: f.GetUid(), GID: f.GetGid(), ModTime: time.Unix(0, f.GetMtimeNs()).UTC(), Target: excerpt.Cut(f.GetTarget(), proto.MaxPath),
	}
}

func (r *Relay) readFile(ctx context.Context, q url.Values) (io.ReadCloser, error) {
	guest, err := r.agent(ctx)
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

func (r *Relay) writeFile(ctx context.Context, q url.Values, body io.Reader) error {
	guest, err := r.agent(ctx)
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
	return guest.WriteFile(ctx, q.Get("path"), attr, body)
}

func (r *Relay) tarOut(ctx context.Context, q url.Values) (io.ReadCloser, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return nil, err
	}
	return guest.TarOut(ctx, q.Get("path"))
}

func (r *Relay) tarIn(ctx context.Context, q url.Values, body io.Reader) error {
	guest, err := r.agent(ctx)
	if err != nil {
		return err
	}
	return guest.TarIn(ctx, q.Get("path"), body)
}
