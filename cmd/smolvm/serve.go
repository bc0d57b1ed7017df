package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli"
	"github.com/smolvm/smolvm/internal/cli/serve"
	"github.com/smolvm/smolvm/internal/server"
	"github.com/smolvm/smolvm/internal/wire"
)

// answer is `smolvm serve`.
func answer(ctx context.Context, o cli.OpenOptions, s serve.Options) error {
	o.Boots = true
	images, err := wire.Images(o.Home, version, o.Log)
	if err != nil {
		return err
	}
	m, err := manager(o, images)
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", s.Socket)
	if err != nil {
		return errdefs.Host.Errorf("listen on %s: %w", s.Socket, err)
	}
	if err := os.Chmod(s.Socket, 0o600); err != nil {
		_ = l.Close()
		return errdefs.Host.Errorf("protect %s: %w", s.Socket, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := server.New(context.WithoutCancel(ctx), server.Options{VMs: m, Version: programVersion(), Log: o.Log, SSHImages: store{images}.BuildSSH})
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"socket": s.Socket, "version": version}); err != nil {
		return err
	}
	if s.ExitWithStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	_ = srv.Shutdown(late)
	_ = srv.Close()
	return <-done
}
