package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli"
	"github.com/smolvm/smolvm/internal/cli/serve"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/server"
	"github.com/smolvm/smolvm/internal/server/gate"
	"github.com/smolvm/smolvm/internal/server/hostpath"
	"github.com/smolvm/smolvm/internal/server/listen"
	"github.com/smolvm/smolvm/internal/sys/token"
	"github.com/smolvm/smolvm/internal/sys/undo"
	"github.com/smolvm/smolvm/internal/wire"
)

// graceful is how long a server that was asked to end waits for answers under way.
const graceful = 10 * time.Second

// privateDir is how the directories are called that SDKs make for the sockets of their servers.
const privateDir = "smolvm-"

// answer is `smolvm serve`.
func answer(ctx context.Context, o cli.OpenOptions, s serve.Options) error {
	o.Boots = true
	if s.LogRequests {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	images, err := wire.Images(o.Home, version, o.Log)
	if err != nil {
		return err
	}
	so, err := serverOptions(o, images)
	if err != nil {
		return err
	}
	if so.Paths, err = hostpath.Below(s.AllowPaths); err != nil {
		return err
	}
	where, err := places(ctx, o, s)
	if err != nil {
		return err
	}
	so.Remote = where.remote
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := server.New(context.WithoutCancel(ctx), so)
	if err := json.NewEncoder(os.Stdout).Encode(where.told); err != nil {
		return err
	}
	if s.ExitWithStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	var all errgroup.Group
	for _, l := range where.listeners {
		all.Go(func() error {
			defer cancel()
			return srv.Serve(l)
		})
	}
	if s.ExitWithStdin && s.Socket != "" {
		// An SDK's private server outlives the process that made the directory of its socket.
		defer func() { _ = os.Remove(filepath.Dir(s.Socket)) }() // only when it is empty
	}
	<-ctx.Done()
	late, stop := context.WithTimeout(context.WithoutCancel(ctx), graceful)
	defer stop()
	_ = srv.Shutdown(late)
	_ = srv.Close()
	err = all.Wait()
	if dir := filepath.Dir(s.Socket); s.ExitWithStdin && strings.HasPrefix(filepath.Base(dir), privateDir) {
		_ = os.Remove(dir) // an SDK that was killed cannot; what is not empty stays
	}
	return err
}

func serverOptions(o cli.OpenOptions, images *image.Store) (server.Options, error) {
	m, err := manager(o, images)
	return server.Options{VMs: m, Images: store{images}, SSHImages: store{images}.BuildSSH, Version: programVersion(), Log: o.Log}, err
}

// place is where a server answers, and told is the line that says so.
type place struct {
	listeners []net.Listener
	remote    *gate.Remote
	told      map[string]any
}

func places(ctx context.Context, o cli.OpenOptions, s serve.Options) (place, error) {
	var u undo.Stack
	defer u.Run()
	p := place{told: map[string]any{"version": version}}
	if s.Socket == "" && s.Listen == "" {
		s.Socket = filepath.Join(o.Home, "serve", "serve.sock")
	}
	if s.Socket != "" {
		l, err := listen.Unix(ctx, s.Socket, o.Log)
		if err != nil {
			return p, err
		}
		u.Add(func() { _ = l.Close() })
		p.listeners, p.told["socket"] = append(p.listeners, l), s.Socket
	}
	if s.Listen == "" {
		u.Release()
		return p, nil
	}
	file := &token.File{Path: token.Path(o.Home)}
	if _, err := token.Ensure(file.Path); err != nil {
		return p, errdefs.Host.Errorf("serve: %w", err).WithRemedy("smolvm token --rotate")
	}
	l, named, err := listen.TCP(ctx, s.Listen, s.TLSCert, s.TLSKey)
	if err != nil {
		return p, err
	}
	scheme := "http"
	if s.TLSCert != "" {
		scheme = "https"
	}
	p.listeners, p.told["url"] = append(p.listeners, l), scheme+"://"+l.Addr().String()
	p.remote = gate.NewRemote(o.Log, file.Token, named, server.Open()...)
	u.Release()
	return p, nil
}
