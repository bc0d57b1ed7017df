package rpc

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

func (c *Client) tell(ctx context.Context, route string, req any) error {
	_, err := call[Nothing](ctx, c, route, req)
	return err
}

// StartDetached starts a command that outlives this client and returns once it runs; with req.Stdin or a terminal, Attach
// writes to it. With req.Main its output goes to the VM's output log.
func (c *Client) StartDetached(ctx context.Context, req api.ExecRequest) (api.ProcessInfo, error) {
	if err := req.Validate(); err != nil {
		return api.ProcessInfo{}, err
	}
	if req.TTY != nil || req.Shell || req.Stdin {
		if err := c.knowsProcesses(); err != nil {
			return api.ProcessInfo{}, err
		}
	}
	b, err := startFrame(req)
	if err != nil {
		return api.ProcessInfo{}, errdefs.Internal.Errorf("start a command: %w", err)
	}
	return startCall(ctx, c, b)
}

// Signal sends a signal to a command that runs; with group, to everything that it started.
func (c *Client) Signal(ctx context.Context, execID string, signal int, group bool) error {
	return c.tell(ctx, RouteSignal, SignalRequest{ExecID: execID, Signal: signal, Group: group})
}

// Ping asks the agent for a sign of life and returns the time it took.
func (c *Client) Ping(ctx context.Context) (time.Duration, error) {
	res, err := call[PingResponse](ctx, c, RoutePing, Nothing{})
	return time.Duration(res.Micros) * time.Microsecond, err
}

// Sync writes the guest's file systems back.
func (c *Client) Sync(ctx context.Context) error { return c.tell(ctx, RouteSync, Nothing{}) }

// Metrics asks the guest for its figures.
func (c *Client) Metrics(ctx context.Context) (api.Metrics, error) {
	return call[api.Metrics](ctx, c, RouteMetrics, Nothing{})
}

// Pause stops the VM's processors.
func (c *Client) Pause(ctx context.Context) error { return c.tell(ctx, RoutePause, Nothing{}) }

// Unpause lets them go on.
func (c *Client) Unpause(ctx context.Context) error { return c.tell(ctx, RouteUnpause, Nothing{}) }

// Stop ends the VM and returns when its record is settled; the supervisor is then about to end.
func (c *Client) Stop(ctx context.Context, req StopRequest) error { return c.tell(ctx, RouteStop, req) }

// SetOwner changes who decides that the VM may go, or renews a lease.
func (c *Client) SetOwner(ctx context.Context, req OwnerRequest) error {
	if req.Owner == api.OwnerLease {
		if err := c.knows(protocolSettings, "knows no leases"); err != nil {
			return err
		}
	}
	return c.tell(ctx, RouteOwner, req)
}

// SetTTL says how long the VM may run from now on, and keeps that; 0 = as long as it likes.
func (c *Client) SetTTL(ctx context.Context, ttl time.Duration) error {
	if err := c.knows(protocolSettings, "cannot change its time to live"); err != nil {
		return err
	}
	return c.tell(ctx, RouteTTL, TTLRequest{ttl.Milliseconds()})
}

// SetEnv changes the environment of the commands that are started from then on, keeps that, and returns the whole.
func (c *Client) SetEnv(ctx context.Context, change api.EnvChange) (map[string]string, error) {
	if err := c.knows(protocolSettings, "cannot change its environment"); err != nil {
		return nil, err
	}
	res, err := call[EnvResponse](ctx, c, RouteEnv, change)
	return res.Env, err
}

// SetNetwork changes the policy of the VM's network. When it returns, the new one is in force, and kept.
func (c *Client) SetNetwork(ctx context.Context, p api.NetworkPolicy) error {
	return c.tell(ctx, RouteNetwork, NetworkRequest{Policy: p})
}

// SetSecrets puts other values in place of the VM's secrets', and keeps other sources. When it returns, the new ones are in use.
func (c *Client) SetSecrets(ctx context.Context, change api.SecretChange) error {
	if err := c.knows(protocolSecrets, "knows no secrets"); err != nil {
		return err
	}
	return c.tell(ctx, RouteSecrets, change)
}

// knows refuses what the supervisor is too old for.
func (c *Client) knows(protocol int, cannot string) error {
	if c.hello.ProtocolMax < protocol {
		return errdefs.Unavailable.Errorf("the VM %s was started by smolvm %s, which %s", c.hello.ID, c.hello.Build, cannot).
			WithRemedy("smolvm stop %s && smolvm start %s", c.hello.ID, c.hello.ID)
	}
	return nil
}

func (c *Client) knowsPorts() error { return c.knows(protocolPorts, "publishes no ports") }

// PublishPort publishes a port of the VM, and keeps that, and returns it with the number that it has on this host.
func (c *Client) PublishPort(ctx context.Context, p api.Port) (api.Port, error) {
	if err := c.knowsPorts(); err != nil {
		return p, err
	}
	return call[api.Port](ctx, c, RoutePort, PortRequest{Port: p})
}

// UnpublishPort ends that and the port's connections, and returns the port. It is named as in api.SelectPort.
func (c *Client) UnpublishPort(ctx context.Context, p api.Port) (api.Port, error) {
	if err := c.knowsPorts(); err != nil {
		return p, err
	}
	return call[api.Port](ctx, c, RoutePort, PortRequest{Port: p, Remove: true})
}

// WaitPort returns when something in the guest listens on a TCP port.
func (c *Client) WaitPort(ctx context.Context, port int) error {
	if err := c.knowsPorts(); err != nil {
		return err
	}
	return c.tell(ctx, RouteWaitPort, WaitPortRequest{Port: port})
}

// ReadFile opens a regular file in the guest. length < 0 reads to the end. It lasts as long as ctx.
func (c *Client) ReadFile(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error) {
	q := url.Values{"path": {path}, "offset": {strconv.FormatInt(offset, 10)}, "length": {strconv.FormatInt(length, 10)}}
	return c.do(ctx, http.MethodGet, RouteFile+"?"+q.Encode(), nil)
}

// WriteFile replaces a file in the guest by what r gives, atomically. mode 0 = 0644, or that of the file that was there.
func (c *Client) WriteFile(ctx context.Context, path string, mode os.FileMode, r io.Reader) error {
	q := url.Values{"path": {path}}
	if mode != 0 {
		q.Set("mode", strconv.FormatUint(uint64(unixMode(mode)), 8))
	}
	return c.upload(ctx, RouteFile+"?"+q.Encode(), r)
}

// TarOut opens a tar of a file or directory in the guest; names are relative to the path's parent. It lasts as long as ctx.
func (c *Client) TarOut(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.do(ctx, http.MethodGet, RouteTar+"?"+url.Values{"path": {path}}.Encode(), nil)
}

// TarIn unpacks a tar below a directory in the guest.
func (c *Client) TarIn(ctx context.Context, path string, r io.Reader) error {
	return c.upload(ctx, RouteTar+"?"+url.Values{"path": {path}}.Encode(), r)
}

func (c *Client) upload(ctx context.Context, route string, r io.Reader) error {
	src := newSource(r)
	res, err := c.do(ctx, http.MethodPut, route, src)
	if rerr := src.failure(); rerr != nil {
		return errdefs.Invalid.Errorf("read what is to be sent: %w", rerr)
	}
	if err != nil {
		return err
	}
	return res.Close()
}

// Stat describes a file; a symlink is followed unless noFollow.
func (c *Client) Stat(ctx context.Context, path string, noFollow bool) (api.FileInfo, error) {
	return call[api.FileInfo](ctx, c, RouteStat, PathRequest{Path: path, NoFollow: noFollow})
}

// List returns a directory, sorted by name.
func (c *Client) List(ctx context.Context, path string) ([]api.FileInfo, error) {
	res, err := call[ListResponse](ctx, c, RouteList, PathRequest{Path: path})
	return res.Entries, err
}

// Mkdir makes a directory.
func (c *Client) Mkdir(ctx context.Context, path string, mode os.FileMode, parents bool) error {
	return c.tell(ctx, RouteMkdir, PathRequest{Path: path, Mode: unixMode(mode), Recursive: parents})
}

// Remove removes a file or directory.
func (c *Client) Remove(ctx context.Context, path string, recursive bool) error {
	return c.tell(ctx, RouteRemove, PathRequest{Path: path, Recursive: recursive})
}

// Rename moves a file.
func (c *Client) Rename(ctx context.Context, from, to string) error {
	return c.tell(ctx, RouteRename, PathRequest{Path: from, To: to})
}

// Chmod sets a file's permission bits.
func (c *Client) Chmod(ctx context.Context, path string, mode os.FileMode) error {
	return c.tell(ctx, RouteChmod, PathRequest{Path: path, Mode: unixMode(mode)})
}

// unixMode is mode as stat(2) has it.
func unixMode(mode os.FileMode) uint32 {
	m := uint32(mode.Perm())
	for bit, unix := range map[os.FileMode]uint32{os.ModeSetuid: 0o4000, os.ModeSetgid: 0o2000, os.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			m |= unix
		}
	}
	return m
}
