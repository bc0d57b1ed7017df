package client

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// Configure tells a booted guest who it is. It can be called once.
func (c *Client) Configure(ctx context.Context, req *proto.ConfigureRequest) (*proto.ConfigureResponse, error) {
	return unary(ctx, c, "configure the guest", c.rpc.Configure, req)
}

// SetEnv replaces the environment that Configure gave, for commands and logins from then on.
func (c *Client) SetEnv(ctx context.Context, env map[string]string) error {
	_, err := unary(ctx, c, "set the guest's environment", c.rpc.SetEnvironment, &proto.SetEnvironmentRequest{Env: env})
	return err
}

// Resumed tells a restored guest its new epoch and identity. On an error the machine must be killed.
func (c *Client) Resumed(ctx context.Context, req *proto.ResumedRequest) error {
	res, err := unary(ctx, c, "resume the guest", c.rpc.Resumed, req)
	if err == nil && res.GetEpoch() != req.GetEpoch() {
		err = errdefs.Internal.Errorf("resume the guest: it confirmed epoch %d, not %d", res.GetEpoch(), req.GetEpoch())
	}
	return err
}

// Ping waits for a sign of life.
func (c *Client) Ping(ctx context.Context) error {
	_, err := unary(ctx, c, "ping the guest", c.rpc.Ping, &proto.PingRequest{})
	return err
}

// Sync writes the guest's file systems back.
func (c *Client) Sync(ctx context.Context) error {
	_, err := unary(ctx, c, "sync the guest's disks", c.rpc.Sync, &proto.SyncRequest{})
	return err
}

// Metrics asks the guest for its figures.
func (c *Client) Metrics(ctx context.Context) (*proto.MetricsResponse, error) {
	return unary(ctx, c, "read the guest's figures", c.rpc.Metrics, &proto.MetricsRequest{})
}

// Shutdown ends all commands, those that do not end by themselves after grace, writes everything back and has the machine
// switched off. After it the link is closed: the guest waits for that.
func (c *Client) Shutdown(ctx context.Context, grace time.Duration) error {
	_, err := unary(ctx, c, "shut the guest down", c.rpc.Shutdown, &proto.ShutdownRequest{GraceMs: grace.Milliseconds()})
	if err == nil {
		_ = c.Close()
	}
	return err
}

// Signal sends sig to a running command; with group, to everything that it started.
func (c *Client) Signal(ctx context.Context, execID string, sig syscall.Signal, group bool) error {
	_, err := unary(ctx, c, "send "+sig.String(), c.rpc.Signal,
		&proto.SignalRequest{ExecId: execID, Signal: int32(sig), Group: group}) //nolint:gosec // a signal's number
	return err
}

// Stat describes a file; a symlink is followed unless noFollow.
func (c *Client) Stat(ctx context.Context, path string, noFollow bool) (*proto.FileInfo, error) {
	res, err := unary(ctx, c, "stat", c.rpc.Stat, &proto.StatRequest{Path: path, NoFollow: noFollow})
	if err != nil {
		return nil, err
	}
	if res.GetInfo() == nil {
		return nil, errdefs.Internal.Errorf("stat %s: the guest's answer is empty", path)
	}
	return res.GetInfo(), nil
}

// MaxEntries bounds a listing.
const MaxEntries = 100_000

// List returns a directory, sorted by name.
func (c *Client) List(ctx context.Context, path string) ([]*proto.FileInfo, error) {
	var all []*proto.FileInfo
	after := ""
	for {
		page, err := unary(ctx, c, "list", c.rpc.List, &proto.ListRequest{Path: path, After: after, Limit: proto.MaxList})
		if err != nil {
			return nil, err
		}
		for _, e := range page.GetEntries() {
			if e.GetName() <= after || strings.Contains(e.GetName(), "/") {
				return nil, errdefs.Internal.Errorf("list %s: the guest's names are not in order", path)
			}
			after = e.GetName()
		}
		if all = append(all, page.GetEntries()...); len(all) > MaxEntries {
			return nil, errdefs.Exhausted.Errorf("list %s: it has more than %d entries", path, MaxEntries).
				WithRemedy("smolvm exec ID -- ls -f %s", fmt.Sprintf("%q", path))
		}
		if !page.GetMore() || len(page.GetEntries()) == 0 {
			return all, nil
		}
	}
}

// Mkdir makes a directory; mode 0 is 0755.
func (c *Client) Mkdir(ctx context.Context, path string, mode uint32, parents bool) error {
	_, err := unary(ctx, c, "make the directory", c.rpc.Mkdir, &proto.MkdirRequest{Path: path, Mode: mode, Parents: parents})
	return err
}

// Remove removes a file or an empty directory; with recursive, everything below.
func (c *Client) Remove(ctx context.Context, path string, recursive bool) error {
	_, err := unary(ctx, c, "remove", c.rpc.Remove, &proto.RemoveRequest{Path: path, Recursive: recursive})
	return err
}

// Rename moves a file.
func (c *Client) Rename(ctx context.Context, from, to string) error {
	_, err := unary(ctx, c, "rename", c.rpc.Rename, &proto.RenameRequest{From: from, To: to})
	return err
}

// Chmod sets a file's permission bits, as stat(2) has them.
func (c *Client) Chmod(ctx context.Context, path string, mode uint32) error {
	_, err := unary(ctx, c, "change the mode", c.rpc.Chmod, &proto.ChmodRequest{Path: path, Mode: mode})
	return err
}
