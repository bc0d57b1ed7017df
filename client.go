package smolvm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Client is a way to a server of VMs. It is safe for concurrent use. Nothing is started before the first call.
type Client struct {
	http    *http.Client
	base    string // http://HOST
	token   string
	remote  bool     // the server may be on another host
	private *private // nil: the server is a shared one

	checkMu sync.Mutex
	checked bool
}

// NewClient returns a client. Close it.
func NewClient(opts ...Option) (*Client, error) { return newClient(optionsOf(opts)) }

func newClient(o options) (*Client, error) {
	c := &Client{base: "http://smolvm", token: cmp.Or(o.token, os.Getenv("SMOLVM_TOKEN"))}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ForceAttemptHTTP2: false}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	host := o.host
	if host == "" && o.binary == "" && o.home == "" {
		host = os.Getenv("SMOLVM_HOST")
	}
	if host == "" {
		c.private = &private{binary: o.binary, home: o.home}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.private.dial(ctx) }
		return c, nil
	}
	u, err := url.Parse(host)
	switch {
	case err != nil:
		return nil, errdefs.Invalid.Errorf("SMOLVM_HOST: %w", err)
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", u.Path)
		}
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.Trim(u.Path, "/") == "":
		if u.Scheme == "http" && !local(u.Hostname()) {
			return nil, errdefs.Denied.Errorf("SMOLVM_HOST: %q would send the token in the clear", host).WithRemedy("use https")
		}
		c.base, c.remote = u.Scheme+"://"+u.Host, true
	default:
		return nil, errdefs.Invalid.Errorf("SMOLVM_HOST: %q is no address of a server", host).
			WithRemedy("unix:///PATH, https://HOST:PORT, or http://127.0.0.1:PORT")
	}
	return c, nil
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close ends the private server. VMs go on, but for temporary ones that nobody closed.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	if c.private != nil {
		return c.private.close()
	}
	return nil
}

// failure gives what went wrong on the way to the server its class.
func failure(ctx context.Context, err error) error {
	if _, known := errors.AsType[*errdefs.Error](err); known {
		return err
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errdefs.Timeout.Errorf("ask the smolvm server: %w", context.Cause(ctx))
	case ctx.Err() != nil:
		return errdefs.Unavailable.Errorf("ask the smolvm server: %w", context.Cause(ctx))
	}
	return errdefs.Unavailable.Errorf("the smolvm server does not answer: %w", err)
}

// problem is a failure as the server tells it.
type problem struct {
	Detail string        `json:"detail"`
	Code   errdefs.Class `json:"code"`
	Remedy string        `json:"remedy"`
}

func (p problem) err() error {
	return errdefs.Problem{Code: p.Code, Message: p.Detail, Remedy: p.Remedy}.Err()
}

const maxProblem = 1 << 20

// refusal is the failure that an answer tells.
func refusal(res *http.Response) error {
	var p problem
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err := json.NewDecoder(io.LimitReader(res.Body, maxProblem)).Decode(&p); err != nil || kind != "application/problem+json" || p.Detail == "" {
		return errdefs.Unavailable.Errorf("the server answered %s, which is no answer of smolvm's", res.Status)
	}
	return p.err()
}

// speaks is the version of the API that this client knows.
const speaks = "/v1"

// check finds out, once, that the server speaks our protocol.
func (c *Client) check(ctx context.Context) error {
	c.checkMu.Lock()
	defer c.checkMu.Unlock()
	if c.checked {
		return nil
	}
	var v api.Version
	if err := c.ask(ctx, http.MethodGet, "/version", nil, &v); err != nil {
		return err
	}
	if v.Version == "" {
		return errdefs.Unavailable.Errorf("the server does not speak %s of the HTTP API", speaks).WithRemedy("let SMOLVM_BIN name a program that is as old as the SDK")
	}
	c.checked = true
	return nil
}

// request makes a request. body may be nil, a reader, or what is sent as JSON.
func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var r io.Reader
	kind := ""
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "application/octet-stream"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, errdefs.Invalid.Errorf("ask the smolvm server: %w", err)
		}
		r, kind = bytes.NewReader(text), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+speaks+path, r)
	if err != nil {
		return nil, errdefs.Invalid.Errorf("ask the smolvm server: %w", err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	c.authorize(req.Header)
	return req, nil
}

func (c *Client) authorize(h http.Header) {
	if c.remote && c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
}

// do makes a request and returns its answer, which is none of failure.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, failure(req.Context(), err)
	}
	if res.StatusCode < http.StatusMultipleChoices {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	return nil, refusal(res)
}

// ask makes a request of JSON. into may be nil.
func (c *Client) ask(ctx context.Context, method, path string, body, into any) error {
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	res, err := c.do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return failure(ctx, err)
	}
	return nil
}

// long asks for what takes its time, and has progress told of it.
func (c *Client) long(ctx context.Context, path string, body, into any, progress api.ProgressFunc) error {
	req, err := c.request(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := c.do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewReader(res.Body)
	event := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return failure(ctx, err)
		}
		line = strings.TrimSpace(line)
		if name, is := strings.CutPrefix(line, "event: "); is {
			event = name
		}
		data, is := strings.CutPrefix(line, "data: ")
		if !is {
			continue
		}
		switch event {
		case "progress":
			var p api.Progress
			if err := json.Unmarshal([]byte(data), &p); err == nil && progress != nil {
				progress(p)
			}
		case "result":
			return json.Unmarshal([]byte(data), into)
		case "error":
			var p problem
			if err := json.Unmarshal([]byte(data), &p); err != nil {
				return failure(ctx, err)
			}
			return p.err()
		}
	}
}
