// Package fcapi speaks Firecracker's HTTP API on a unix socket: typed, over one connection, with bounds on everything
// that is read. It is written by hand: the SDK for Go was generated from release 1.4, leaks connections and brings
// forty modules, for the twelve calls that we make.
//
// Layer: engine/firecracker. It imports errdefs.
package fcapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

const (
	// maxBody bounds an answer: the largest, the machine's configuration, has a few KiB.
	maxBody    = 256 << 10
	maxHeaders = 16 << 10
	maxFault   = 2 << 10 // of what is shown of a refusal
	// maxRequest is Firecracker's own limit, which it answers by hanging up.
	maxRequest = 51200
)

// FaultError is Firecracker's answer to a call that it refuses.
type FaultError struct {
	Status  int
	Message string
}

func (e *FaultError) Error() string { return e.Message }

// Client is the API of one monitor. It is safe for concurrent use; calls go one after another, as the monitor takes them.
type Client struct {
	http *http.Client
	// Before, when set, is told of each call before it is made: "PUT /boot-source".
	Before func(request string)
}

// New returns a client that reaches the monitor by dial. Firecracker serves ten connections and no more, so there is one,
// which is kept.
func New(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{http: &http.Client{
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			MaxConnsPerHost:        1,
			MaxIdleConnsPerHost:    1,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaders,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close gives the connection up.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version asks for the monitor's version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v struct {
		Version string `json:"firecracker_version"`
	}
	if err := c.call(ctx, http.MethodGet, "/version", nil, &v); err != nil {
		return Version{}, err
	}
	out, err := parseField(v.Version)
	if err != nil {
		return Version{}, errdefs.Engine.Errorf("Firecracker says of itself: %w", err)
	}
	return out, nil
}

// Info asks for the monitor's state.
func (c *Client) Info(ctx context.Context) (i InstanceInfo, err error) {
	err = c.call(ctx, http.MethodGet, "/", nil, &i)
	return i, err
}

// Machine sets the processors and the memory.
func (c *Client) Machine(ctx context.Context, m MachineConfig) error {
	return c.call(ctx, http.MethodPut, "/machine-config", m, nil)
}

// Boot sets what boots.
func (c *Client) Boot(ctx context.Context, b BootSource) error {
	return c.call(ctx, http.MethodPut, "/boot-source", b, nil)
}

// Drive adds a disk. The guest sees them in the order in which they were added.
func (c *Client) Drive(ctx context.Context, d Drive) error {
	return c.call(ctx, http.MethodPut, "/drives/"+d.ID, d, nil)
}

// Network adds a card.
func (c *Client) Network(ctx context.Context, n NetworkInterface) error {
	return c.call(ctx, http.MethodPut, "/network-interfaces/"+n.ID, n, nil)
}

// Vsock adds the socket device.
func (c *Client) Vsock(ctx context.Context, v Vsock) error {
	return c.call(ctx, http.MethodPut, "/vsock", v, nil)
}

// Entropy adds the random number device.
func (c *Client) Entropy(ctx context.Context) error {
	return c.call(ctx, http.MethodPut, "/entropy", Entropy{}, nil)
}

// Start starts the guest.
func (c *Client) Start(ctx context.Context) error { return c.act(ctx, "InstanceStart") }

// FlushMetrics has the monitor write what it counted.
func (c *Client) FlushMetrics(ctx context.Context) error { return c.act(ctx, "FlushMetrics") }

func (c *Client) act(ctx context.Context, what string) error {
	return c.call(ctx, http.MethodPut, "/actions", map[string]string{"action_type": what}, nil)
}

// SetState pauses and resumes.
func (c *Client) SetState(ctx context.Context, state string) error {
	return c.call(ctx, http.MethodPatch, "/vm", map[string]string{"state": state}, nil)
}

// Snapshot writes a paused machine's state and memory.
func (c *Client) Snapshot(ctx context.Context, s SnapshotCreate) error {
	return c.call(ctx, http.MethodPut, "/snapshot/create", s, nil)
}

// Load makes the machine of a snapshot. A monitor that cannot ends.
func (c *Client) Load(ctx context.Context, s SnapshotLoad) error {
	return c.call(ctx, http.MethodPut, "/snapshot/load", s, nil)
}

// call makes one request. A refusal is an error of class invalid that wraps a *FaultError; everything else that fails is
// of class engine.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	what := method + " " + path
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return errdefs.Internal.Errorf("%s: %w", what, err)
		}
		if len(b) > maxRequest {
			return errdefs.Internal.Errorf("%s: a request of %d bytes; Firecracker takes %d", what, len(b), maxRequest)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://firecracker"+path, body)
	if err != nil {
		return errdefs.Internal.Errorf("%s: %w", what, err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Before != nil {
		c.Before(what)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return failed(ctx, what, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return failed(ctx, what, err)
	case len(b) > maxBody:
		return errdefs.Engine.Errorf("%s: Firecracker's answer has more than %d bytes", what, maxBody)
	case resp.StatusCode >= 400:
		return refused(what, resp.StatusCode, b)
	case resp.StatusCode < 200 || resp.StatusCode >= 300:
		return errdefs.Engine.Errorf("%s: Firecracker answered with status %d", what, resp.StatusCode)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return errdefs.Engine.Errorf("%s: Firecracker's answer: %w", what, err)
	}
	return nil
}

// failed words an error of the connection.
func failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return errdefs.Timeout.Errorf("%s: no answer from Firecracker: %w", what, context.Cause(ctx))
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner                            // net/http's own words name a host that there is none of
		if _, ok := inner.(*net.OpError); ok { //nolint:errorlint // the outermost one is wanted
			break
		}
	}
	return errdefs.Engine.Errorf("%s: %w", what, err)
}

// refused reads a fault message.
func refused(what string, status int, body []byte) error {
	var f struct {
		Message string `json:"fault_message"`
	}
	if json.Unmarshal(body, &f) != nil || f.Message == "" {
		f.Message = string(body)
	}
	fault := &FaultError{Status: status, Message: clean(f.Message)}
	class := errdefs.Invalid
	if status >= 500 {
		class = errdefs.Engine
	}
	return class.Errorf("%s: Firecracker refuses: %w", what, fault)
}

// clean bounds a message and takes out what would move a terminal's cursor.
func clean(s string) string {
	if len(s) > maxFault {
		s = s[:maxFault] + " …"
	}
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if s = strings.TrimSpace(s); s == "" {
		return "(it does not say why)"
	}
	return s
}
